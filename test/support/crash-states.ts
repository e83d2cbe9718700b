// Rebuilds what a disk may hold after a power cut at any moment of a trace, after ALICE (Pillai et al., OSDI 2014).

import { dirname } from "node:path";
import type { Random } from "./seeded-random.ts";
import { buffersOf, numbersOf, pathOfDescriptor, type Trace, type TracedCall } from "./system-call-trace.ts";

/** A device writes sectors whole, but in any order and perhaps not at all. */
const SECTOR_BYTES = 512;

/** `synced`: only what an fsync has covered. `torn`: any sectors of the rest as well. `all`: all that was written. */
export type CrashMode = "synced" | "torn" | "all";
export const CRASH_MODES: readonly CrashMode[] = ["synced", "torn", "all"];

/** File contents by path. */
export type DiskImage = ReadonlyMap<string, Uint8Array>;

/** What happens to the disk, or leaves for the client, in the order in which it can have an effect. */
export type CrashEvent =
  | { readonly kind: "write"; readonly path: string; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly kind: "cut"; readonly path: string; readonly length: number }
  | { readonly kind: "create" | "makeDirectory" | "unlink"; readonly path: string }
  | { readonly kind: "rename"; readonly path: string; readonly to: string }
  | { readonly kind: "syncBegins" | "syncEnds"; readonly path: string; readonly call: TracedCall }
  | { readonly kind: "sent"; readonly bytes: Uint8Array };

/** The calls that a trace must hold to be replayed. */
export const REPLAYED_CALLS: readonly string[] = [
  "openat",
  "mkdir",
  "rename",
  "unlink",
  "pwrite64",
  "ftruncate",
  "fsync",
  "fdatasync",
  "fallocate",
  "pwritev",
  "write",
  "writev",
  "sendto",
  "sendmsg",
];

/**
 * The events of a trace that concern `directory`, its own name in its parent, and what is sent. A sync covers what was
 * written before it began and only counts once it has ended; all else can have its effect as soon as it begins. Locks
 * and the wal-index are left out: every start makes them anew.
 * @throws Error for a call that it cannot replay
 */
export function crashEvents(trace: Trace, directory: string): CrashEvent[] {
  const timed: { at: number; event: CrashEvent }[] = [];
  for (const call of trace.calls) {
    if (call.result === -1 || call.isInjected || !REPLAYED_CALLS.includes(call.name)) continue;
    const event = eventOf(call, directory);
    if (event === null) continue;
    timed.push({ at: call.begun, event });
    if (event.kind === "syncBegins" && call.result !== null) {
      timed.push({ at: call.ended + 0.5, event: { ...event, kind: "syncEnds" } });
    }
  }
  return timed.sort((a, b) => a.at - b.at).map(({ event }) => event);
}

function eventOf(call: TracedCall, directory: string): CrashEvent | null {
  const isWatched = (path: string) =>
    (path === directory || path.startsWith(`${directory}/`)) && !/-shm$|\/lock\.db/.test(path);
  if (["openat", "mkdir", "unlink", "rename"].includes(call.name)) {
    const [path = "", to = ""] = buffersOf(call).map(String);
    if (!isWatched(path)) return null;
    if (call.name === "mkdir") return { kind: "makeDirectory", path };
    if (call.name === "unlink") return { kind: "unlink", path };
    if (call.name === "rename") return { kind: "rename", path, to };
    if (/\bO_TRUNC\b/.test(call.arguments)) throw new Error(`an open that cuts cannot be replayed: ${path}`);
    return /\bO_CREAT\b/.test(call.arguments) ? { kind: "create", path } : null;
  }
  const path = pathOfDescriptor(call);
  if (/^(socket|pipe):/.test(path)) return { kind: "sent", bytes: Buffer.concat(buffersOf(call)) };
  if (call.name === "fsync" || call.name === "fdatasync") {
    return isWatched(path) || path === dirname(directory) ? { kind: "syncBegins", path, call } : null;
  }
  if (!isWatched(path)) return null;
  if (call.name === "ftruncate") return { kind: "cut", path, length: Number(/, (\d+)$/.exec(call.arguments)![1]) };
  if (call.name !== "pwrite64") throw new Error(`a call that cannot be replayed: ${call.name} ${path}`);
  const bytes = buffersOf(call)[0]!;
  return {
    kind: "write",
    path,
    offset: numbersOf(call).at(-1)!,
    bytes: bytes.subarray(0, call.result ?? bytes.length),
  };
}

type Change = { readonly sequence: number } & (
  | { readonly kind: "write"; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly kind: "cut"; readonly length: number }
);

/** Bytes that grow and shrink like a file; a gap reads as zeros. */
class FileBytes {
  #buffer: Uint8Array;
  #length = 0;

  constructor(content: Uint8Array = new Uint8Array(0)) {
    this.#buffer = content.slice();
    this.#length = content.length;
  }

  /** A view, until the next change. */
  get content(): Uint8Array {
    return this.#buffer.subarray(0, this.#length);
  }

  write(offset: number, bytes: Uint8Array): void {
    const end = offset + bytes.length;
    if (end > this.#buffer.length) {
      const larger = new Uint8Array(Math.max(end, 2 * this.#buffer.length));
      larger.set(this.content);
      this.#buffer = larger;
    }
    this.#buffer.set(bytes, offset);
    this.#length = Math.max(this.#length, end);
  }

  cut(length: number): void {
    if (length < this.#length) this.#buffer.fill(0, length, this.#length);
    else if (length > this.#buffer.length) this.write(length - 1, new Uint8Array(1));
    this.#length = length;
  }

  apply(change: Change): void {
    if (change.kind === "write") this.write(change.offset, change.bytes);
    else this.cut(change.length);
  }

  /** Only some sectors of a write arrive. */
  applyTorn(change: Change, random: Random, probability: number): void {
    if (change.kind === "cut") {
      if (random.chance(probability)) this.cut(change.length);
      return;
    }
    const { offset, bytes } = change;
    for (let at = 0; at < bytes.length; ) {
      const next = Math.min(bytes.length, at + SECTOR_BYTES - ((offset + at) % SECTOR_BYTES));
      if (random.chance(probability)) this.write(offset + at, bytes.subarray(at, next));
      at = next;
    }
  }
}

class SimulatedFile {
  readonly synced = new FileBytes();
  readonly all = new FileBytes();
  pending: Change[] = [];

  change(change: Change): void {
    this.pending.push(change);
    this.all.apply(change);
  }

  syncUpTo(sequence: number): void {
    for (const change of this.pending) if (change.sequence < sequence) this.synced.apply(change);
    this.pending = this.pending.filter((change) => change.sequence >= sequence);
  }

  image(mode: CrashMode, random: Random, probability: number): Uint8Array {
    if (mode !== "torn") return this[mode].content;
    const bytes = new FileBytes(this.synced.content);
    for (const change of this.pending) bytes.applyTorn(change, random, probability);
    return bytes.content;
  }
}

type Names = Map<string, SimulatedFile>;
type NameChange = { readonly sequence: number; readonly directory: string; apply(names: Names): void };

/** A disk behind a volatile cache: what was synced survives, of the rest anything may. */
export class SimulatedDisk {
  readonly #directory: string;
  #sequence = 0;
  readonly #names: Names = new Map();
  readonly #syncedNames: Names = new Map();
  #pendingNames: NameChange[] = [];
  readonly #syncMarks = new Map<TracedCall, number>();

  constructor(directory: string) {
    this.#directory = directory;
  }

  apply(event: CrashEvent): void {
    const sequence = this.#sequence++;
    switch (event.kind) {
      case "sent":
        break;
      case "syncBegins":
        this.#syncMarks.set(event.call, sequence);
        break;
      case "syncEnds":
        this.#sync(event.path, this.#syncMarks.get(event.call)!);
        break;
      case "write":
      case "cut":
        this.#names.get(event.path)!.change({ ...event, sequence });
        break;
      case "create":
      case "makeDirectory": {
        if (this.#names.has(event.path)) break;
        // A directory is a name without content.
        const file = new SimulatedFile();
        this.#rename(sequence, event.path, (names) => names.set(event.path, file));
        break;
      }
      case "unlink":
        this.#rename(sequence, event.path, (names) => names.delete(event.path));
        break;
      case "rename": {
        const file = this.#names.get(event.path)!;
        this.#rename(sequence, event.path, (names) => names.delete(event.path) && names.set(event.to, file));
      }
    }
  }

  /** The files that a start after a crash at this moment would find. Changes to names stay in their order. */
  image(mode: CrashMode, random: Random): DiskImage {
    const names = new Map(mode === "all" ? this.#names : this.#syncedNames);
    if (mode === "torn") {
      const arrived = random.below(this.#pendingNames.length + 1);
      for (const change of this.#pendingNames.slice(0, arrived)) change.apply(names);
    }
    const probability = random.pick([0.1, 0.5, 0.9]);
    const image = new Map<string, Uint8Array>();
    if (!names.has(this.#directory)) return image;
    for (const [path, file] of names) {
      if (path !== this.#directory) image.set(path, file.image(mode, random, probability));
    }
    return image;
  }

  #rename(sequence: number, path: string, apply: NameChange["apply"]): void {
    this.#pendingNames.push({ sequence, directory: dirname(path), apply });
    apply(this.#names);
  }

  #sync(path: string, mark: number): void {
    const isCovered = (change: NameChange) => change.directory === path && change.sequence < mark;
    for (const change of this.#pendingNames.filter(isCovered)) change.apply(this.#syncedNames);
    this.#pendingNames = this.#pendingNames.filter((change) => !isCovered(change));
    if (path !== this.#directory) this.#names.get(path)?.syncUpTo(mark);
  }
}
