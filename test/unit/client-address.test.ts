// The client's address: the peer, or what trusted proxies say of it.

import { expect, test } from "bun:test";
import { clientAddress, networkOf } from "../../src/http/client-address.ts";
import { Subnets } from "../../src/shared/ip-addresses.ts";

const TRUSTED = new Subnets(["10.0.0.0/8", "127.0.0.1", "fd00::/8"]);

function ask(peer: string | null, forwarded: string | null, trusted: Subnets | null = TRUSTED): string | null {
  return clientAddress(peer, new Headers(forwarded === null ? {} : { "X-Forwarded-For": forwarded }), trusted);
}

test("without trusted proxies it is the peer, whatever the header says", () => {
  expect(ask("203.0.113.9", "198.51.100.1", null)).toBe("203.0.113.9");
  expect(ask("10.0.0.1", "198.51.100.1", null)).toBe("10.0.0.1");
  expect(ask(null, "198.51.100.1")).toBeNull();
});

test("IPv4 in IPv6 is IPv4, however it is spelled", () => {
  for (const address of ["::ffff:9.0.0.1", "::FFFF:900:1", "0:0:0:0:0:ffff:9.0.0.1", "0:0:0:0:0:FFFF:0900:0001"]) {
    expect([address, ask("10.0.0.1", address)]).toEqual([address, "9.0.0.1"]);
  }
  expect(ask("10.0.0.1", "::ffff:ffff:ffff")).toBe("255.255.255.255");
});

test("a peer that is no trusted proxy is not believed", () => {
  expect(ask("203.0.113.9", "198.51.100.1")).toBe("203.0.113.9");
  expect(ask("203.0.113.9", "10.0.0.1")).toBe("203.0.113.9");
});

test("behind trusted proxies it is the last address that is none of them", () => {
  for (const [forwarded, address] of [
    ["198.51.100.1", "198.51.100.1"],
    ["198.51.100.1, 10.0.0.2", "198.51.100.1"],
    ["198.51.100.1, 10.0.0.2, 10.0.0.3", "198.51.100.1"],
    ["6.6.6.6, 198.51.100.1, 10.0.0.2", "198.51.100.1"],
    ["10.6.6.6, 198.51.100.1", "198.51.100.1"],
    [" 198.51.100.1 ,10.0.0.2 ", "198.51.100.1"],
    ["2001:db8::1, fd00::2", "2001:db8::1"],
    ["::ffff:198.51.100.1", "198.51.100.1"],
    ["::ffff:10.0.0.9, ::ffff:10.0.0.8", "10.0.0.9"],
    ["10.0.0.9", "10.0.0.9"],
  ] as const) {
    expect([forwarded, ask("10.0.0.1", forwarded)]).toEqual([forwarded, address]);
  }
});

test("what is no address ends the walk at the last one seen", () => {
  for (const [forwarded, address] of [
    ["unknown", "10.0.0.1"],
    ["", "10.0.0.1"],
    ["198.51.100.1, unknown", "10.0.0.1"],
    ["198.51.100.1, unknown, 10.0.0.2", "10.0.0.2"],
    ["198.51.100.1:8080", "10.0.0.1"],
    ["[2001:db8::1]", "10.0.0.1"],
    ["198.51.100.1,,10.0.0.2", "10.0.0.2"],
    ["<script>", "10.0.0.1"],
    ["1.2.3", "10.0.0.1"],
  ] as const) {
    expect([forwarded, ask("10.0.0.1", forwarded)]).toEqual([forwarded, address]);
  }
  expect(ask("10.0.0.1", null)).toBe("10.0.0.1");
});

test("one address has one form: IPv4 inside IPv6 is IPv4, IPv6 is compressed and without a zone", () => {
  expect(ask("::ffff:203.0.113.9", null)).toBe("203.0.113.9");
  expect(ask("::FFFF:203.0.113.9", null)).toBe("203.0.113.9");
  expect(ask("2001:0DB8:0:0:0:0:0:1", null)).toBe("2001:db8::1");
  expect(ask("fe80::1%eth0", null)).toBe("fe80::1");
  expect(ask("::1", null)).toBe("::1");
  expect(ask("::ffff:10.0.0.1", "198.51.100.1")).toBe("198.51.100.1");
  expect(ask("fd00::1", "198.51.100.1")).toBe("198.51.100.1");
});

test("an IPv6 address counts as its network of 64 bits, any other as itself", () => {
  expect(networkOf("2001:db8:1:2:3:4:5:6")).toBe(networkOf("2001:db8:1:2::9"));
  expect(networkOf("2001:db8::1")).toBe("2001:db8:0:0::/64");
  expect(networkOf("2001:db8:1:3::9")).not.toBe(networkOf("2001:db8:1:2::9"));
  expect(["192.0.2.1", null].map(networkOf)).toEqual(["192.0.2.1", ""]);
});
