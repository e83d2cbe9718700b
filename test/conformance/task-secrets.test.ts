// The secret that signs tokens of users is changed: what was issued before goes on.

import { describe, expect, test } from "bun:test";
import { startServer } from "../support/executable.ts";
import { SECRET } from "../support/targets.ts";
import { ask, logIn, signUp, UNLIMITED } from "../support/task-client.ts";
import { tempDir } from "../support/temp-dir.ts";
import { operatorAt } from "../support/token-client.ts";

const NEXT_SECRET = "the-next-secret-with-more-than-32-bytes-in-it";

interface Pair {
  readonly token: string;
  readonly refresh_token: string;
}

describe("a new secret", () => {
  test("with the old one beside it leaves access tokens, refresh tokens and retried refreshes in force", async () => {
    using dir = tempDir();
    const settings = { ...UNLIMITED, DB_PATH: dir.file("data"), JWT_SECRET: SECRET };
    const refresh = async (url: string, refresh_token: string) => {
      const answer = await ask(await operatorAt(url), "POST", "/auth/refresh", { body: { refresh_token } });
      return answer.status === 200 ? ((await answer.json()) as Pair) : answer.status;
    };
    const statusOf = async (url: string, token: string) =>
      (await ask(await operatorAt(url), "GET", "/auth/me", { token })).status;
    const before = await startServer(settings);
    const account = await signUp(await operatorAt(before.url));
    const other = await logIn(await operatorAt(before.url), account.email, account.password);
    const pair = (await refresh(before.url, account.refreshToken)) as Pair;
    await before[Symbol.asyncDispose]();
    const rotated = { ...settings, JWT_SECRET: NEXT_SECRET, JWT_SECRET_PREVIOUS: SECRET };
    const after = await startServer(rotated);
    expect(await statusOf(after.url, account.token)).toBe(200);
    // Its answer was lost: the child that the old secret made comes again, and is good.
    expect(await refresh(after.url, account.refreshToken)).toMatchObject({ refresh_token: pair.refresh_token });
    const next = (await refresh(after.url, pair.refresh_token)) as Pair;
    expect(await statusOf(after.url, next.token)).toBe(200);
    expect(await refresh(after.url, pair.refresh_token)).toMatchObject({ refresh_token: next.refresh_token });
    const fresh = (await refresh(after.url, other.refreshToken)) as Pair;
    await after[Symbol.asyncDispose]();
    // Without the old one: access tokens of old end, refresh tokens are found by their hash and go on.
    await using alone = await startServer({ ...rotated, JWT_SECRET_PREVIOUS: undefined });
    expect(await statusOf(alone.url, account.token)).toBe(401);
    expect(await statusOf(alone.url, next.token)).toBe(200);
    expect(await refresh(alone.url, fresh.refresh_token)).toMatchObject({ token_type: "Bearer" });
  });
});
