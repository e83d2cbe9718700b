// What users cost in memory who announce bodies and do not send them, or ask for much and do not read it.

import { describe, expect, test } from "bun:test";
import { eventually } from "../support/eventually.ts";
import { openRaw } from "../support/raw-request.ts";
import { metricOf } from "../support/relay-books.ts";
import { openBinary } from "../support/targets.ts";
import { ask, createTask, signUp, UNLIMITED } from "../support/task-client.ts";
import { useTarget } from "../support/use-target.ts";

const MiB = 1024 * 1024;
const ENV = { ...UNLIMITED, METRICS: "open", MAX_VALUE_BYTES: "4MiB", BODY_BUDGET_BYTES: "8MiB" };
const TEST_MS = 120_000;

describe("a user", () => {
  const target = useTarget(openBinary, ENV);
  const headOf = (method: string, path: string, token: string, headers = "") => {
    const { host } = new URL(target().url);
    return `${method} ${path} HTTP/1.1\r\nHost: ${host}\r\nAuthorization: Bearer ${token}\r\n${headers}\r\n`;
  };

  test("who announces bodies and sends none shuts nobody out", async () => {
    const { token } = await signUp(target());
    using connections = new DisposableStack();
    for (let count = 0; count < 40; count++) {
      const connection = connections.use(await openRaw(target().url));
      connection.send(headOf("POST", "/api/v1/tasks", token, "Content-Length: 262144\r\n"));
    }
    await Bun.sleep(200);
    expect(await metricOf(target(), "gokv_body_budget_used_bytes")).toBe(0);
    expect((await ask(target(), "POST", "/tasks", { token, body: { title: "x" } })).status).toBe(201);
    const stored = await target().fetch("/b/k", { method: "PUT", body: new Uint8Array(2 * MiB) });
    expect(stored.status).toBe(200);
  });

  test(
    "who asks for long lists and does not read them holds no more than the budget",
    async () => {
      const account = await signUp(target());
      const description = "密".repeat(20_000);
      for (let count = 0; count < 100; count++) await createTask(target(), account, { title: `${count}`, description });
      const whole = await ask(target(), "GET", "/tasks?limit=1000", account);
      expect(await whole.json()).toHaveLength(100);
      using connections = new DisposableStack();
      for (let count = 0; count < 8; count++) {
        const connection = connections.use(await openRaw(target().url));
        connection.pause();
        connection.send(headOf("GET", "/api/v1/tasks?limit=1000", account.token));
      }
      await eventually("the budget is in use", 10_000, async () => {
        return (await metricOf(target(), "gokv_body_budget_used_bytes")) > MiB;
      });
      expect(await metricOf(target(), "gokv_body_budget_used_bytes")).toBeLessThanOrEqual(8 * MiB);
      connections.dispose();
      await eventually("the budget is free", 20_000, async () => {
        return (await metricOf(target(), "gokv_body_budget_used_bytes")) === 0;
      });
    },
    TEST_MS,
  );

  test("is not told that nothing has changed by the tag of another's sums", async () => {
    const [ann, bob] = [await signUp(target()), await signUp(target())];
    await createTask(target(), ann, { title: "a", labels: ["hers"] });
    await createTask(target(), bob, { title: "b", labels: ["his"] });
    for (const path of ["/labels", "/tasks/stats"]) {
      const tag = (await ask(target(), "GET", path, ann)).headers.get("etag")!;
      const headers = { "If-None-Match": tag };
      expect((await ask(target(), "GET", path, { ...ann, headers })).status).toBe(304);
      expect((await ask(target(), "GET", path, { ...bob, headers })).status).toBe(200);
    }
  });
});
