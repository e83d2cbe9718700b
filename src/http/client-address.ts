// Whose request it is when proxies stand between.

import { isIP, isIPv6 } from "node:net";
import { canonicalIpv6, ipv4Of, ipv6Groups, type Subnets } from "../shared/ip-addresses.ts";

/** The same as the URL standard writes it. */
const IPV4_IN_GROUPS = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/;
const IPV4_IN_IPV6 = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i;

/**
 * The peer's address; only if the peer is a trusted proxy, X-Forwarded-For is walked from the right to the first
 * address that is not one. An invalid entry, or the end of the header, stops at the last address seen.
 */
export function clientAddress(peer: string | null, headers: Headers, trustedProxies: Subnets | null): string | null {
  let address = peer === null ? null : normalise(peer);
  if (address === null || trustedProxies === null) return address;
  const forwarded = headers.get("x-forwarded-for")?.split(",") ?? [];
  while (trustedProxies.has(address)) {
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
  const network = ipv6Groups(address).slice(0, 4);
  return `${network.map((group) => group.toString(16)).join(":")}::/64`;
}

/** IPv4 written as IPv6 becomes IPv4; IPv6 takes its compressed form. */
function normalise(address: string): string {
  if (!address.includes(":")) return address;
  const ipv4 = IPV4_IN_IPV6.exec(address)?.[1];
  if (ipv4 !== undefined) return ipv4;
  if (isIP(address) !== 6) return address;
  const canonical = canonicalIpv6(address);
  const [, high, low] = IPV4_IN_GROUPS.exec(canonical) ?? [];
  return high === undefined ? canonical : ipv4Of(Number.parseInt(high, 16), Number.parseInt(low!, 16));
}
