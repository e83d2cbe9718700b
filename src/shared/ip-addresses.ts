// IP addresses and subnets as text: one reading of them for settings, rules, proxies and tokens.

import { BlockList, isIP } from "node:net";

interface Subnet {
  readonly address: string;
  readonly prefix: number;
  readonly family: "ipv4" | "ipv6";
}

/** `10.0.0.0/8`, or one address; null = neither. A zone is passed over. */
export function parseSubnet(text: string): Subnet | null {
  const [address = "", length, ...rest] = text.split("/");
  const family = familyOf(address);
  const bits = family === "ipv6" ? 128 : 32;
  const prefix = length === undefined ? bits : /^\d{1,3}$/.test(length) ? Number(length) : Number.NaN;
  return isIP(address) !== 0 && prefix <= bits && rest.length === 0 ? { address, prefix, family } : null;
}

export function requireSubnet(text: string): Subnet {
  const subnet = parseSubnet(text);
  if (subnet === null) throw new Error(`${text} is neither an address nor a range of them`);
  return subnet;
}

export class Subnets {
  readonly texts: readonly string[];
  readonly #blocks = new BlockList();

  /** Each a text that parseSubnet reads; throws for any other. */
  constructor(texts: readonly string[]) {
    this.texts = texts;
    for (const { address, prefix, family } of texts.map(requireSubnet)) {
      this.#blocks.addSubnet(address, prefix, family);
    }
  }

  /** Whether the address lies in one of them. */
  has(address: string): boolean {
    return this.#blocks.check(address, familyOf(address));
  }
}

/** An IPv6 address in the one form that the URL standard gives it, without a zone. */
export function canonicalIpv6(address: string): string {
  return new URL(`http://[${address.split("%")[0]}]/`).hostname.slice(1, -1);
}

/** The eight groups of an IPv6 address that holds no IPv4 notation. */
export function ipv6Groups(address: string): number[] {
  const [head = "", tail = ""] = address.split("::");
  const [before, after] = [numbersOf(head), numbersOf(tail)];
  return [...before, ...new Array<number>(8 - before.length - after.length).fill(0), ...after];
}

/** Two groups as IPv4. */
export function ipv4Of(high: number, low: number): string {
  return `${high >> 8}.${high & 255}.${low >> 8}.${low & 255}`;
}

function numbersOf(groups: string): number[] {
  return groups === "" ? [] : groups.split(":").map((group) => Number.parseInt(group, 16));
}

function familyOf(address: string): Subnet["family"] {
  return isIP(address) === 6 ? "ipv6" : "ipv4";
}
