// Which addresses may be dialled, whatever they are disguised as.

import { describe, expect, test } from "bun:test";
import { AddressRules } from "../../src/http/address-rules.ts";
import { Subnets } from "../../src/shared/ip-addresses.ts";

function rules(ranges: readonly string[] = [], allowHttp = false): AddressRules {
  return new AddressRules(ranges.length === 0 ? null : new Subnets(ranges), allowHttp);
}

/** The first and the last address of each forbidden range, and what lies right beside it. */
const FORBIDDEN = [
  ["0.0.0.0", "0.255.255.255"],
  ["10.0.0.0", "10.255.255.255"],
  ["100.64.0.0", "100.127.255.255"],
  ["127.0.0.1", "127.255.255.255"],
  ["169.254.0.0", "169.254.169.254", "169.254.255.255"],
  ["172.16.0.0", "172.31.255.255"],
  ["192.0.0.0", "192.0.0.255"],
  ["192.0.2.0", "192.0.2.255"],
  ["192.168.0.0", "192.168.255.255"],
  ["198.18.0.0", "198.19.255.255"],
  ["198.51.100.0", "198.51.100.255"],
  ["203.0.113.0", "203.0.113.255"],
  ["224.0.0.0", "239.255.255.255", "240.0.0.1", "255.255.255.255"],
  ["::", "::1", "0:0:0:0:0:0:0:1", "::127.0.0.1"],
  ["fc00::", "fdff:ffff::1"],
  ["fe80::1", "fe80::1%eth0", "febf::1"],
  ["fec0::1"],
  ["ff02::1"],
  ["2001:db8::1", "2001:2::1", "2001:10::1", "2001:20::1", "3fff::1", "5f00::1", "100::1"],
  ["2001:0:4136:e378:8000:63bf:3fff:fdd2"],
  ["64:ff9b:1::7f00:1"],
].flat();

const PUBLIC = [
  ["1.1.1.1", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0"],
  ["169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.0.3.0", "192.167.255.255"],
  ["192.169.0.0", "198.17.255.255", "198.20.0.0", "198.51.99.255", "203.0.114.0", "223.255.255.255"],
  ["2606:4700::1111", "2001:4860:4860::8888", "2001:1::1", "fbff::1", "2a00::1"],
].flat();

describe("without a list", () => {
  test("no address of this machine, its network or of documentation is allowed", () => {
    expect(FORBIDDEN.filter((address) => rules().isAllowed(address))).toEqual([]);
  });

  test("every other address is", () => {
    expect(PUBLIC.filter((address) => !rules().isAllowed(address))).toEqual([]);
  });

  test("IPv6 that leads to IPv4 is judged by the IPv4 address inside", () => {
    for (const [inside, isAllowed] of [
      ["7f00:1", false],
      ["a9fe:a9fe", false],
      ["a00:1", false],
      ["101:101", true],
    ] as const) {
      for (const address of [
        `::ffff:${inside}`,
        `::ffff:0:${inside}`,
        `64:ff9b::${inside}`,
        `2002:${inside}::`,
        `2002:${inside}:1::5`,
      ]) {
        expect([address, rules().isAllowed(address)]).toEqual([address, isAllowed]);
      }
    }
    for (const address of ["::ffff:127.0.0.1", "::FFFF:7F00:1", "0:0:0:0:0:ffff:7f00:1", "64:ff9b::127.0.0.1"]) {
      expect([address, rules().isAllowed(address)]).toEqual([address, false]);
    }
  });

  test("what is no address is not allowed", () => {
    const odd = ["", "localhost", "127.1", "2130706433", "0x7f.1", "1.1.1.1.", "1.1.1", "[2a00::1]", "2a00::1::"];
    expect(odd.filter((address) => rules().isAllowed(address) || rules([], true).mayUsePlainHttp(address))).toEqual([]);
  });
});

describe("with a list", () => {
  test("what is inside is allowed, in every disguise, and nothing beside it", () => {
    const local = rules(["127.0.0.0/8", "fd00::/8"]);
    const open = ["127.0.0.1", "127.255.0.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "fd12::1"];
    expect(open.filter((address) => !local.isAllowed(address))).toEqual([]);
    const shut = ["10.0.0.1", "169.254.169.254", "::1", "0.0.0.0", "fc00::1", "fe80::1", "::ffff:10.0.0.1"];
    expect(shut.filter((address) => local.isAllowed(address))).toEqual([]);
    expect(local.isAllowed("1.1.1.1")).toBe(true);
  });

  test("link-local is opened only by an entry that itself lies in link-local", () => {
    const inside = ["169.254.169.254", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "fe80::1", "fe80::1%eth0"];
    const wide = rules(["0.0.0.0/0", "::/0", "169.0.0.0/8", "128.0.0.0/1", "169.254.0.0/15", "fe00::/7"]);
    expect(inside.filter((address) => wide.isAllowed(address))).toEqual([]);
    expect(wide.isAllowed("10.0.0.1")).toBe(true);
    expect(wide.isAllowed("fc00::1")).toBe(true);
    const narrow = rules(["169.254.169.254/32", "fe80::/10"]);
    expect(inside.filter((address) => !narrow.isAllowed(address))).toEqual([]);
    expect(narrow.isAllowed("169.254.169.253")).toBe(false);
    expect(rules(["169.254.0.0/16"]).isAllowed("169.254.1.1")).toBe(true);
  });
});

describe("plain http", () => {
  test("goes to listed addresses only", () => {
    const local = rules(["127.0.0.0/8"]);
    expect(["127.0.0.1", "::ffff:127.0.0.1"].map((address) => local.mayUsePlainHttp(address))).toEqual([true, true]);
    expect(["1.1.1.1", "10.0.0.1"].map((address) => local.mayUsePlainHttp(address))).toEqual([false, false]);
    expect(rules().mayUsePlainHttp("1.1.1.1")).toBe(false);
    expect(rules().neverUsesPlainHttp).toBe(true);
    expect(local.neverUsesPlainHttp).toBe(false);
  });

  test("may be allowed everywhere, which opens no forbidden address", () => {
    const open = rules([], true);
    expect(open.mayUsePlainHttp("1.1.1.1")).toBe(true);
    expect(FORBIDDEN.filter((address) => open.mayUsePlainHttp(address))).toEqual([]);
    expect(open.neverUsesPlainHttp).toBe(false);
  });
});
