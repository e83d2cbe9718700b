// The gate of users by itself: what it looks up, what it remembers, and when it stops believing that.

import { describe, expect, test } from "bun:test";
import type { AccessClaims } from "../../src/auth/user-token.ts";
import { UserTokens } from "../../src/auth/user-token.ts";
import { AppError } from "../../src/shared/errors.ts";
import { UserGate } from "../../src/task/user-gate.ts";

const NOW_MS = 1_800_000_000_000;

interface Rig {
  readonly gate: UserGate;
  readonly header: string;
  readonly failures: string[];
  /** Sessions that have not ended. */
  readonly live: Set<string>;
  lookups: number;
  /** What a lookup waits for after it has read. */
  pause: Promise<void>;
}

async function openRig(userId = 1): Promise<Rig> {
  const tokens = new UserTokens([new TextEncoder().encode("a secret")], () => NOW_MS);
  const sessionId = Bun.randomUUIDv7();
  const rig = { failures: [] as string[], live: new Set([sessionId]), lookups: 0, pause: Promise.resolve() };
  const gate = new UserGate({
    tokens,
    async findLive({ sessionId: id }: AccessClaims) {
      rig.lookups++;
      const found = rig.live.has(id);
      await rig.pause;
      return found;
    },
    onFailure: (reason) => rig.failures.push(reason),
  });
  const access = { userId, email: "a@b.cd", sessionId, tokenVersion: 1, issuedAtMs: NOW_MS };
  const header = `Bearer ${await tokens.mint({ ...access, expiresAtMs: NOW_MS + 60_000 })}`;
  return Object.assign(rig, { gate, header });
}

async function refusal(asked: () => unknown): Promise<readonly [string, string]> {
  try {
    await asked();
  } catch (error) {
    if (error instanceof AppError) return [error.code, error.message];
    throw error;
  }
  throw new Error("admitted");
}

describe("the gate of users", () => {
  test("looks a session up once, then admits without a promise", async () => {
    const { gate, header, ...rig } = await openRig();
    const first = gate.admit(header);
    expect(first).toBeInstanceOf(Promise);
    expect(await first).toMatchObject({ userId: 1, tokenVersion: 1 });
    expect(gate.admit(header)).toMatchObject({ userId: 1 });
    expect(rig.failures).toEqual([]);
  });

  test("tells a missing header from a wrong one, and counts both", async () => {
    const { gate, failures } = await openRig();
    expect(await refusal(() => gate.admit(null))).toEqual(["unauthorized", "Authorization header required"]);
    expect(await refusal(() => gate.admit("Bearer x"))).toEqual(["invalid_token", "Invalid token"]);
    expect(failures).toEqual(["missing", "invalid"]);
  });

  test("refuses a session that ended, and does not remember that it was live", async () => {
    const rig = await openRig();
    const who = await rig.gate.admit(rig.header);
    const release = rig.gate.hold(1);
    rig.live.clear();
    // The change is committed, not answered.
    expect(await rig.gate.isLive(who)).toBe(false);
    expect(await refusal(() => rig.gate.admit(rig.header))).toEqual(["invalid_token", "Invalid token"]);
    release();
    expect(await refusal(() => rig.gate.admit(rig.header))).toEqual(["invalid_token", "Invalid token"]);
  });

  test("what was read before a change and arrives after it is not remembered", async () => {
    const rig = await openRig();
    const read = Promise.withResolvers<void>();
    rig.pause = read.promise;
    const slow = rig.gate.admit(rig.header);
    while (rig.lookups === 0) await Bun.sleep(1);
    rig.gate.hold(1)();
    rig.live.clear();
    read.resolve();
    await slow;
    expect(await refusal(() => rig.gate.admit(rig.header))).toEqual(["invalid_token", "Invalid token"]);
  });

  test("what was read during a change and arrives after it is not remembered", async () => {
    const rig = await openRig();
    const who = await rig.gate.admit(rig.header);
    const release = rig.gate.hold(1);
    const read = Promise.withResolvers<void>();
    rig.pause = read.promise;
    const slow = rig.gate.isLive(who);
    rig.live.clear();
    release();
    read.resolve();
    await slow;
    expect(await refusal(() => rig.gate.admit(rig.header))).toEqual(["invalid_token", "Invalid token"]);
  });

  test("a change of one user leaves what is known of others", async () => {
    const rig = await openRig(1);
    await rig.gate.admit(rig.header);
    const { lookups } = rig;
    rig.gate.hold(2);
    await rig.gate.admit(rig.header);
    expect(rig.lookups).toBe(lookups);
    const release = [rig.gate.hold(1), rig.gate.hold(1)];
    release[0]!();
    await rig.gate.admit(rig.header);
    await rig.gate.admit(rig.header);
    expect(rig.lookups).toBe(lookups + 2);
    release[1]!();
    await rig.gate.admit(rig.header);
    await rig.gate.admit(rig.header);
    expect(rig.lookups).toBe(lookups + 3);
  });
});
