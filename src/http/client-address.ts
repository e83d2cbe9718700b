// Whose request it is when proxies stand between.

import { type BlockList, isIP, isIPv6 } from "node:net";

/** The same as the URL standard writes it. */
const IPV4_IN_GROUPS = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/;
const IPV4_IN_IPV6 = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i;

/**
 * The peer's address; only if the peer is a trusted proxy, X-Forwarded-For is walked from the right to the first
 * address that is not one. An invalid entry, or the end of the header, stops at the last address seen.
 */
export function clientAddress(peer: string | null, headers: Headers, trustedProxies: BlockList | null): string | null {
  let address = peer === null ? null : normalise(peer);
  if (address === null || trustedProxies === null) return address;
  const forwarded = headers.get("x-forwarded-for")?.split(",") ?? [];
  while (isTrusted(address, trustedProxies)) {
    const next = forwarded.pop()?.trim();
    if (next === undefined || isIP(next) === 0) break;
    address = normalise(next);
  }
  return address;
}

/**
 * Whom to count an address as: an IPv6 client owns a /64, so that counting single addresses would count nothing. Peers
 * without an address (null) share one name.
 */
export function networkOf(address: string | null): string {
  if (address === null || !isIPv6(address)) return address ?? "";
  const [head = "", tail = ""] = address.split("::");
  const left = head.split(":").filter((group) => group !== "");
  const right = address.includes("::") ? tail.split(":").filter((group) => group !== "") : [];
  const zeros = new Array<string>(8 - left.length - right.length).fill("0");
  return `${[...left, ...zeros, ...right].slice(0, 4).join(":")}::/64`;
}

function isTrusted(address: string, trustedProxies: BlockList): boolean {
  return trustedProxies.check(address, isIP(address) === 6 ? "ipv6" : "ipv4");
}

/** IPv4 written as IPv6 becomes IPv4; IPv6 takes its compressed form. */
function normalise(address: string): string {
  if (!address.includes(":")) return address;
  const ipv4 = IPV4_IN_IPV6.exec(address)?.[1];
  if (ipv4 !== undefined) return ipv4;
  if (isIP(address) !== 6) return address;
  const compressed = new URL(`http://[${address.split("%")[0]}]/`).hostname.slice(1, -1);
  const mapped = IPV4_IN_GROUPS.exec(compressed);
  if (mapped === null) return compressed;
  const bits = (Number.parseInt(mapped[1]!, 16) << 16) | Number.parseInt(mapped[2]!, 16);
  return [24, 16, 8, 0].map((shift) => (bits >>> shift) & 0xff).join(".");
}
