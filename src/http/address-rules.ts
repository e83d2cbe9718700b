// Which addresses may be dialled at all: a URL that somebody entered must not open what only this machine can reach.

import { BlockList, isIP } from "node:net";

type Subnet = readonly [address: string, prefix: number];

const FORBIDDEN_IPV4: readonly Subnet[] = [
  ["0.0.0.0", 8],
  ["10.0.0.0", 8],
  ["100.64.0.0", 10],
  ["127.0.0.0", 8],
  ["169.254.0.0", 16],
  ["172.16.0.0", 12],
  ["192.0.0.0", 24],
  ["192.0.2.0", 24],
  ["192.168.0.0", 16],
  ["198.18.0.0", 15],
  ["198.51.100.0", 24],
  ["203.0.113.0", 24],
  // Multicast, reserved, broadcast.
  ["224.0.0.0", 3],
];

const FORBIDDEN_IPV6: readonly Subnet[] = [
  // The unspecified address, loopback, and IPv4 in its oldest disguise.
  ["::", 96],
  // Translation prefixes of a network's own choice: where the IPv4 address stands inside cannot be known.
  ["64:ff9b:1::", 48],
  // Teredo: a tunnel to an IPv4 address.
  ["2001::", 32],
  // Nobody's addresses: benchmarks, identifiers, documentation, segments, what is to be discarded.
  ["2001:2::", 48],
  ["2001:10::", 28],
  ["2001:20::", 28],
  ["2001:db8::", 32],
  ["3fff::", 20],
  ["5f00::", 16],
  ["100::", 64],
  ["fc00::", 7],
  ["fe80::", 10],
  ["fec0::", 10],
  ["ff00::", 8],
];

const LINK_LOCAL: readonly Subnet[] = [
  ["169.254.0.0", 16],
  ["fe80::", 10],
];

/** Words of eight 16-bit groups at which an IPv4 address begins, by the prefix that says so. */
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
  readonly #forbidden = blockList([...FORBIDDEN_IPV4, ...FORBIDDEN_IPV6]);
  readonly #linkLocal = blockList(LINK_LOCAL);
  readonly #allowed: BlockList | null;
  /** The entries of #allowed that themselves lie in link-local. */
  readonly #allowedLinkLocal: BlockList;
  readonly #allowHttp: boolean;
  readonly #verdicts = new Map<string, Verdict>();

  /** `allowed` opens what is forbidden otherwise; `allowHttp` lets go without TLS everywhere. */
  constructor(allowed: BlockList | null, allowHttp: boolean) {
    this.#allowed = allowed;
    this.#allowHttp = allowHttp;
    this.#allowedLinkLocal = blockList((allowed === null ? [] : subnetsOf(allowed)).filter(isLinkLocalSubnet));
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
    const isAllowed = isListed || !check(this.#forbidden, real);
    return { isAllowed, mayUsePlainHttp: isListed || (this.#allowHttp && isAllowed) };
  }

  /** Where cloud providers keep the credentials of a machine: a wide entry such as 0.0.0.0/0 does not open that. */
  #isListed(address: string): boolean {
    if (this.#allowed === null) return false;
    return check(check(this.#linkLocal, address) ? this.#allowedLinkLocal : this.#allowed, address);
  }
}

/** The address that packets go to in the end: the IPv4 one inside, and without a zone. Null = no address. */
function unwrap(address: string): string | null {
  const [bare = ""] = address.split("%");
  const version = isIP(bare);
  if (version !== 6) return version === 4 ? bare : null;
  const words = wordsOf(bare);
  for (const { prefix, at } of DISGUISES) {
    if (!prefix.every((word, index) => words[index] === word)) continue;
    const [high, low] = [words[at]!, words[at + 1]!];
    return `${high >> 8}.${high & 255}.${low >> 8}.${low & 255}`;
  }
  return bare;
}

/** The eight groups of an IPv6 address. The URL parser writes each form of one in the same way. */
function wordsOf(address: string): number[] {
  const canonical = new URL(`http://[${address}]/`).hostname.slice(1, -1);
  const [head = "", tail] = canonical.split("::");
  const before = groups(head);
  const after = groups(tail ?? "");
  return [...before, ...new Array<number>(8 - before.length - after.length).fill(0), ...after];
}

function groups(text: string): number[] {
  return text === "" ? [] : text.split(":").map((group) => Number.parseInt(group, 16));
}

function blockList(subnets: readonly Subnet[]): BlockList {
  const list = new BlockList();
  for (const [address, prefix] of subnets) list.addSubnet(address, prefix, familyOf(address));
  return list;
}

function check(list: BlockList, address: string): boolean {
  return list.check(address, familyOf(address));
}

function familyOf(address: string): "ipv4" | "ipv6" {
  return isIP(address) === 6 ? "ipv6" : "ipv4";
}

/** The entries of a list, which it only tells as text: `Subnet: IPv4 10.0.0.0/8`, `Address: IPv6 ::1`. */
function subnetsOf(list: BlockList): Subnet[] {
  return list.rules.flatMap((rule): Subnet[] => {
    const [, address, prefix] = /^(?:Subnet|Address): IPv[46] ([^/]+)(?:\/(\d+))?$/.exec(rule) ?? [];
    if (address === undefined) return [];
    return [[address, prefix === undefined ? (isIP(address) === 6 ? 128 : 32) : Number(prefix)]];
  });
}

function isLinkLocalSubnet([address, prefix]: Subnet): boolean {
  return LINK_LOCAL.some(
    ([base, bits]) =>
      familyOf(base) === familyOf(address) && prefix >= bits && check(blockList([[base, bits]]), address),
  );
}
