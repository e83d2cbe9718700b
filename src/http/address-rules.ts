// Which addresses may be dialled at all: a URL that somebody entered must not open what only this machine can reach.

import { isIP } from "node:net";
import { canonicalIpv6, ipv4Of, ipv6Groups, requireSubnet, Subnets } from "../shared/ip-addresses.ts";

const FORBIDDEN_IPV4: readonly string[] = [
  "0.0.0.0/8",
  "10.0.0.0/8",
  "100.64.0.0/10",
  "127.0.0.0/8",
  "169.254.0.0/16",
  "172.16.0.0/12",
  "192.0.0.0/24",
  "192.0.2.0/24",
  "192.168.0.0/16",
  "198.18.0.0/15",
  "198.51.100.0/24",
  "203.0.113.0/24",
  // Multicast, reserved, broadcast.
  "224.0.0.0/3",
];

const FORBIDDEN_IPV6: readonly string[] = [
  // The unspecified address, loopback, and IPv4 in its oldest disguise.
  "::/96",
  // Translation prefixes of a network's own choice: where the IPv4 address stands inside cannot be known.
  "64:ff9b:1::/48",
  // Teredo: a tunnel to an IPv4 address.
  "2001::/32",
  // Nobody's addresses: benchmarks, identifiers, documentation, segments, what is to be discarded.
  "2001:2::/48",
  "2001:10::/28",
  "2001:20::/28",
  "2001:db8::/32",
  "3fff::/20",
  "5f00::/16",
  "100::/64",
  "fc00::/7",
  "fe80::/10",
  "fec0::/10",
  "ff00::/8",
];

const LINK_LOCAL: readonly string[] = ["169.254.0.0/16", "fe80::/10"];

/** Groups of an IPv6 address at which an IPv4 address begins, by the prefix that says so. */
const DISGUISES: readonly { readonly prefix: readonly number[]; readonly at: number }[] = [
  // IPv4-mapped, IPv4-translated, NAT64, 6to4.
  { prefix: [0, 0, 0, 0, 0, 0xffff], at: 6 },
  { prefix: [0, 0, 0, 0, 0xffff, 0], at: 6 },
  { prefix: [0x64, 0xff9b, 0, 0, 0, 0], at: 6 },
  { prefix: [0x2002], at: 1 },
];

interface Verdict {
  readonly isAllowed: boolean;
  readonly mayUsePlainHttp: boolean;
}

/** Beyond, all are judged anew. */
const VERDICTS_MAX = 4_096;

export class AddressRules {
  readonly #forbidden = new Subnets([...FORBIDDEN_IPV4, ...FORBIDDEN_IPV6]);
  readonly #linkLocal = new Subnets(LINK_LOCAL);
  readonly #allowed: Subnets | null;
  /** The entries of #allowed that themselves lie in link-local. */
  readonly #allowedLinkLocal: Subnets;
  readonly #allowHttp: boolean;
  readonly #verdicts = new Map<string, Verdict>();

  /** `allowed` opens what is forbidden otherwise; `allowHttp` lets go without TLS everywhere. */
  constructor(allowed: Subnets | null, allowHttp: boolean) {
    this.#allowed = allowed;
    this.#allowHttp = allowHttp;
    this.#allowedLinkLocal = new Subnets(allowed?.texts.filter(isLinkLocal) ?? []);
  }

  /** Whether another server may have this address. Anything that is no IP address: false. */
  isAllowed(address: string): boolean {
    return this.#verdictOn(address).isAllowed;
  }

  /** Whether it may be spoken to there without TLS. */
  mayUsePlainHttp(address: string): boolean {
    return this.#verdictOn(address).mayUsePlainHttp;
  }

  /** Without a list and without `allowHttp` no address at all may be spoken to without TLS. */
  get neverUsesPlainHttp(): boolean {
    return this.#allowed === null && !this.#allowHttp;
  }

  /** Judged once: the rules do not change, and every request asks. */
  #verdictOn(address: string): Verdict {
    const known = this.#verdicts.get(address);
    if (known !== undefined) return known;
    if (this.#verdicts.size >= VERDICTS_MAX) this.#verdicts.clear();
    const verdict = this.#judge(address);
    this.#verdicts.set(address, verdict);
    return verdict;
  }

  #judge(address: string): Verdict {
    const real = unwrap(address);
    if (real === null) return { isAllowed: false, mayUsePlainHttp: false };
    const isListed = this.#isListed(real);
    const isAllowed = isListed || !this.#forbidden.has(real);
    return { isAllowed, mayUsePlainHttp: isListed || (this.#allowHttp && isAllowed) };
  }

  /** Where cloud providers keep the credentials of a machine: a wide entry such as 0.0.0.0/0 does not open that. */
  #isListed(address: string): boolean {
    if (this.#allowed === null) return false;
    return (this.#linkLocal.has(address) ? this.#allowedLinkLocal : this.#allowed).has(address);
  }
}

/** The address that packets go to in the end: the IPv4 one inside, and without a zone. Null = no address. */
function unwrap(address: string): string | null {
  const [bare = ""] = address.split("%");
  const version = isIP(bare);
  if (version !== 6) return version === 4 ? bare : null;
  const groups = ipv6Groups(canonicalIpv6(bare));
  for (const { prefix, at } of DISGUISES) {
    if (!prefix.every((group, index) => groups[index] === group)) continue;
    return ipv4Of(groups[at]!, groups[at + 1]!);
  }
  return bare;
}

/** Whether a whole subnet lies in link-local. */
function isLinkLocal(text: string): boolean {
  const { address, prefix, family } = requireSubnet(text);
  return LINK_LOCAL.some((range) => {
    const outer = requireSubnet(range);
    return outer.family === family && outer.prefix <= prefix && new Subnets([range]).has(address);
  });
}
