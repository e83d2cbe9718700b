// Who may hold how much of the memory for bodies: calls of the relay leave room for other users, users for operators
// and strangers, strangers for users.

import { expect, test } from "bun:test";
import { eventually } from "../support/eventually.ts";
import { put } from "../support/kv-requests.ts";
import { openRaw } from "../support/raw-request.ts";
import { chatAnswer, metricOf } from "../support/relay-books.ts";
import { type Json, RELAY_ENV } from "../support/relay-client.ts";
import { RelayRig } from "../support/relay-rig.ts";
import { openBinary } from "../support/targets.ts";
import { ask, signUp, UNLIMITED } from "../support/task-client.ts";
import { asApp, install, JSON_TYPE } from "../support/token-client.ts";
import { answerJson, chatChunk, stayStill, stream } from "../support/upstream-plans.ts";
import { useTarget } from "../support/use-target.ts";

const MiB = 1024 * 1024;
const WAIT_MS = 10_000;
const ENV = {
  ...RELAY_ENV,
  ...UNLIMITED,
  METRICS: "open",
  BODY_BUDGET_BYTES: "8MiB",
  MAX_VALUE_BYTES: "1MiB",
  TOKEN_MAX_BATCH_BYTES: "1MiB",
  RELAY_BODY_MAX: "1MiB",
  RELAY_RESPONSE_MAX: "1MiB",
};

const target = useTarget(openBinary, ENV);
const host = () => new URL(target().url).host;
/** As large as a body about an account may be. */
const padded = (fields: object) => JSON.stringify(fields).padEnd(16_000);
const used = () => metricOf(target(), "gokv_body_budget_used_bytes");

/** Calls that hold all that calls of a relay token can get, until `signal` ends them. Returns how many there are. */
async function fillWithCalls(rig: RelayRig, signal: AbortSignal): Promise<number> {
  rig.plan(stayStill);
  const isAtWork = async (size: number) => {
    const before = rig.calls[0]!;
    const answer = rig.chat({ messages: [{ role: "user", content: "x".repeat(size) }] }, { signal });
    const refused = answer.then(
      ({ status }) => status,
      () => null,
    );
    const begun = eventually("the call is answered, or at work", WAIT_MS, async () => {
      return rig.calls[0]! > before || Bun.peek.status(refused) !== "pending";
    });
    await begun;
    return rig.calls[0]! > before;
  };
  let calls = 0;
  for (let size = MiB - 1000; size > 50; ) {
    if (await isAtWork(size)) calls++;
    else size = Math.floor(size / 2);
  }
  return calls;
}

test("calls of the relay that wait for their upstream leave room for bodies of all others", async () => {
  const app = await install(target());
  const account = await signUp(target());
  await using rig = await RelayRig.open(target());
  const calls = new AbortController();
  expect(await fillWithCalls(rig, calls.signal)).toBeGreaterThan(5);
  expect(await used()).toBeWithin(5 * MiB, 5.25 * MiB + 1);
  expect((await rig.chat({ messages: [{ role: "user", content: "x".repeat(1000) }] })).status).toBe(503);

  await put(target(), "/shares/small", "x".repeat(100));
  await put(target(), "/shares/large", "x".repeat(MiB));
  const value = JSON.stringify("x".repeat(500_000));
  expect((await asApp(target(), app.token, "/k", { method: "POST", body: value })).status).toBe(200);
  expect((await ask(target(), "POST", "/tasks", { ...account, body: { title: "x" } })).status).toBe(201);
  calls.abort();
  await eventually("all of it is back", WAIT_MS, async () => (await used()) === 0);
});

test("calls that hold all the room there is for bodies leave some for the answers that are waited for", async () => {
  await using rig = await RelayRig.open(target());
  const mayAnswer = Promise.withResolvers<void>();
  rig.upstream.next(async (exchange) => {
    await mayAnswer.promise;
    await answerJson({ ...chatAnswer("yes"), pad: "x".repeat(500_000) })(exchange);
  });
  const first = rig.chat();
  await rig.upstream.request(0);
  const calls = new AbortController();
  await fillWithCalls(rig, calls.signal);
  mayAnswer.resolve();
  expect((await first).status).toBe(200);
  calls.abort();
  await eventually("all of it is back", WAIT_MS, async () => (await used()) === 0);
});

test("streams that have begun hold nothing of large bodies, and no more than the bytes of small ones", async () => {
  await using rig = await RelayRig.open(target());
  rig.plan(stream({ events: [chatChunk("yes")], end: "still" }));
  const leave = new AbortController();
  const begin = async (messages: readonly Json[]) => {
    const answer = await rig.chat({ stream: true, messages }, { signal: leave.signal });
    expect(answer.status).toBe(200);
    await answer.body!.getReader().read();
  };
  const content = "x".repeat(MiB - 1000);
  for (let count = 0; count < 10; count++) await begin([{ role: "user", content }]);
  expect(await used()).toBe(0);
  // Parsed, each of them would be a hundred times what it is in bytes.
  const small = [{ role: "user", content: "hi", more: new Array(5_000).fill([]) }];
  for (let count = 0; count < 10; count++) await begin(small);
  expect(await used()).toBeWithin(10 * 15_000, 10 * 16_384);
  leave.abort();
  await eventually("all of it is back", WAIT_MS, async () => (await used()) === 0);
});

/** Values of 1 MiB for an app, of which the last byte is not sent. */
async function sendAllButTheEnd(connections: DisposableStack, token: string, count: number): Promise<void> {
  const type = "Content-Type: application/json\r\n";
  const head = `POST /kv/token/k HTTP/1.1\r\nHost: ${host()}\r\nX-App-Token: ${token}\r\n${type}`;
  for (let sent = 0; sent < count; sent++) {
    const connection = connections.use(await openRaw(target().url));
    connection.send(`${head}Content-Length: ${MiB}\r\n\r\n${" ".repeat(MiB - 1)}`);
  }
}

test("bodies for one app that have come but for their end leave room for those for other apps", async () => {
  const [busy, other] = [await install(target()), await install(target())];
  using connections = new DisposableStack();
  await sendAllButTheEnd(connections, busy.token, 9);
  await eventually("they hold their share", WAIT_MS, async () => (await used()) > 2.5 * MiB);
  const body = JSON.stringify("x".repeat(900_000));
  expect((await asApp(target(), busy.token, "/k", { method: "POST", body, headers: JSON_TYPE })).status).toBe(503);
  expect((await asApp(target(), other.token, "/k", { method: "POST", body, headers: JSON_TYPE })).status).toBe(200);
  expect(await used()).toBeLessThanOrEqual(3.5 * MiB);
  connections.dispose();
  await eventually("all of it is back", WAIT_MS, async () => (await used()) === 0);
});

test("bodies of users that have come but for their end leave room for those of operators and strangers", async () => {
  const { token } = await install(target());
  const account = await signUp(target());
  using connections = new DisposableStack();
  await sendAllButTheEnd(connections, token, 3);
  for (let apps = 0; apps < 2; apps++) await sendAllButTheEnd(connections, (await install(target())).token, 3);
  await eventually("they hold their share", WAIT_MS, async () => (await used()) > 6.5 * MiB);
  expect(await used()).toBeLessThanOrEqual(7 * MiB);
  const body = JSON.stringify("x".repeat(900_000));
  expect((await asApp(target(), token, "/k", { method: "POST", body, headers: JSON_TYPE })).status).toBe(503);
  await put(target(), "/shares/operator", "x".repeat(MiB));
  const users = "/_admin/task/users";
  const asOperator = (method: string, path: string, fields: object) =>
    target().fetch(path, { method, headers: JSON_TYPE, body: padded(fields) });
  const added = { username: "added", email: "added@example.com", password: "password123" };
  expect((await asOperator("POST", users, added)).status).toBe(201);
  expect((await asOperator("PATCH", `${users}/${account.id}`, { disabled: true })).status).toBe(200);
  const { email, password } = added;
  expect((await ask(target(), "POST", "/auth/login", { body: padded({ email, password }) })).status).toBe(200);
  connections.dispose();
  await eventually("all of it is back", WAIT_MS, async () => (await used()) === 0);
});

test("bodies of strangers that have come but for their end leave room for those of users", async () => {
  const { token } = await install(target());
  const type = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n";
  const piece = " ".repeat(16_000);
  using connections = new DisposableStack();
  for (let count = 0; count < 460; count++) {
    const connection = connections.use(await openRaw(target().url));
    connection.send(`POST /api/v1/auth/login HTTP/1.1\r\nHost: ${host()}\r\n${type}\r\n3e80\r\n${piece}\r\n`);
  }
  await eventually("they hold their share", WAIT_MS, async () => (await used()) > 1.9 * MiB);
  const body = JSON.stringify("x".repeat(500_000));
  expect((await asApp(target(), token, "/k", { method: "POST", body, headers: JSON_TYPE })).status).toBe(200);
  expect(await used()).toBeLessThanOrEqual(2 * MiB);
  connections.dispose();
  await eventually("all of it is back", WAIT_MS, async () => (await used()) === 0);
});
