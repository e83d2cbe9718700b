// Cross-origin access: which pages may use the task API, and what they see of its answers.

import { describe, expect, test } from "bun:test";
import type { OpenTarget, Target } from "../support/targets.ts";
import { ask, createTask, signUp, UNLIMITED } from "../support/task-client.ts";
import { useTarget } from "../support/use-target.ts";

const PAGE = "https://board.example";

export function taskCorsSuite(name: string, open: OpenTarget): void {
  describe(`pages of listed origins on ${name}`, () =>
    listedTests(useTarget(open, { ...UNLIMITED, TASK_CORS_ORIGINS: `${PAGE},http://localhost:5173` })));
  describe(`pages where no origin is listed on ${name}`, () => unlistedTests(useTarget(open, UNLIMITED)));
}

const corsOf = ({ headers }: { headers: { entries(): IterableIterator<[string, string]> } }) =>
  Object.fromEntries([...headers.entries()].filter(([header]) => header.startsWith("access-control-")));

const preflight = (target: Target, origin: string) =>
  target.fetch("/api/v1/tasks/1", {
    method: "OPTIONS",
    headers: {
      Authorization: null,
      Origin: origin,
      "Access-Control-Request-Method": "PATCH",
      "Access-Control-Request-Headers": "authorization,if-match",
    },
  });

function listedTests(target: () => Target): void {
  test("are let in by a preflight without a token, with the methods and headers they ask for", async () => {
    const answer = await preflight(target(), PAGE);
    expect(answer.status).toBe(204);
    expect(corsOf(answer)).toMatchObject({
      "access-control-allow-origin": PAGE,
      "access-control-allow-methods": expect.stringContaining("PATCH"),
      "access-control-allow-headers": "authorization,if-match",
    });
  });

  test("see versions, links and limits of what they read, and refusals as well", async () => {
    const { token } = await signUp(target());
    const { id } = await createTask(target(), { token });
    for (const [path, status] of [
      [`/tasks/${id}`, 200],
      ["/tasks?limit=1", 200],
      ["/tasks/0", 400],
    ] as const) {
      const answer = await ask(target(), "GET", path, { token, headers: { Origin: PAGE } });
      expect([path, answer.status]).toEqual([path, status]);
      const cors = corsOf(answer);
      expect(cors["access-control-allow-origin"]).toBe(PAGE);
      for (const header of ["ETag", "Link", "RateLimit", "Retry-After", "X-Next-Cursor", "X-Total-Count"]) {
        expect(cors["access-control-expose-headers"]).toContain(header);
      }
      expect(cors["access-control-allow-credentials"]).toBeUndefined();
      expect(answer.headers.get("vary")).toContain("Origin");
    }
    const unknown = await ask(target(), "GET", "/tasks", { headers: { Origin: PAGE } });
    expect([unknown.status, corsOf(unknown)["access-control-allow-origin"]]).toEqual([401, PAGE]);
  });

  test("of other origins see nothing", async () => {
    for (const origin of ["https://evil.example", `${PAGE}.evil.example`, "null"]) {
      expect([origin, corsOf(await preflight(target(), origin))]).toEqual([origin, {}]);
      const answer = await ask(target(), "GET", "/tasks", { headers: { Origin: origin } });
      expect([origin, corsOf(answer)]).toEqual([origin, {}]);
    }
  });
}

function unlistedTests(target: () => Target): void {
  test("see nothing, whatever their origin", async () => {
    const answer = await ask(target(), "GET", "/tasks", { headers: { Origin: PAGE } });
    expect([answer.status, corsOf(answer)]).toEqual([401, {}]);
    expect(corsOf(await preflight(target(), PAGE))).toEqual({});
  });
}
