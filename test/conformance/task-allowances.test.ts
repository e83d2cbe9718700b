// Whom a request of the task service is charged to, and what it costs.

import { describe, expect, test } from "bun:test";
import { openInProcessAt, type Target } from "../support/targets.ts";
import { API, ask, signUp, UNLIMITED } from "../support/task-client.ts";

const ONE_AT_A_TIME = { TRUSTED_PROXIES: "127.0.0.1" };

/** No time passes: what was taken does not come back. */
function open(env: Record<string, string>): Promise<Target> {
  const nowMs = Date.now();
  return openInProcessAt(() => nowMs)({ ...UNLIMITED, ...ONE_AT_A_TIME, ...env });
}

const left = (answer: Response) => /r=([0-9]+)/.exec(answer.headers.get("ratelimit") ?? "")?.[1];

describe("the allowance", () => {
  test("of the user pays for a logout with a valid access token, that of the address for any other", async () => {
    await using target = await open({ TASK_RATE_USER: "5/1m", TASK_RATE_IP: "7/1m" });
    const { token, refreshToken } = await signUp(target);
    const headers = { "X-Forwarded-For": "1.1.1.1" };
    const logOut = (more: object) => ask(target, "POST", "/auth/logout", { headers, ...more });
    const policy = (answer: Response) => answer.headers.get("ratelimit-policy");
    const other = await logOut({ token: "none" });
    expect([other.status, policy(other), left(other)]).toEqual([401, '"ip";q=7;w=60', "6"]);
    const own = await logOut({ token });
    expect([own.status, policy(own), left(own)]).toEqual([200, '"user";q=5;w=60', "4"]);
    const again = await logOut({ body: { refresh_token: refreshToken } });
    expect([again.status, policy(again), left(again)]).toEqual([401, '"ip";q=7;w=60', "5"]);
  });

  test("of the address is not touched by a login or a registration that is refused", async () => {
    await using target = await open({ TASK_RATE_IP: "9/1m", TASK_RATE_LOGIN: "1/1m", TASK_RATE_REGISTER: "1/1m" });
    const post = (path: string, body: object) =>
      target.fetch(`${API}${path}`, {
        method: "POST",
        body: JSON.stringify(body),
        headers: { Authorization: null, "X-Forwarded-For": "1.1.1.1" },
      });
    const [email, password] = ["a@example.com", "password123"];
    for (const status of [201, 429, 429, 429]) {
      expect((await post("/auth/register", { username: "alice", email, password })).status).toBe(status);
    }
    for (const status of [200, 429, 429, 429]) {
      expect((await post("/auth/login", { email, password })).status).toBe(status);
    }
    expect(left(await post("/auth/refresh", { refresh_token: "none" }))).toBe("6");
  });

  test("that is smaller than the cost of a request lets it pass when it is whole", async () => {
    await using target = await open({ TASK_RATE_USER: "3/1m" });
    const { token } = await signUp(target);
    const file = await ask(target, "GET", "/tasks/export.csv", { token });
    await file.arrayBuffer();
    expect([file.status, left(file)]).toEqual([200, "0"]);
    expect((await ask(target, "GET", "/auth/me", { token })).status).toBe(429);
  });
});
