// Everything that clients of the KV service do, for a while: afterwards nothing is held and nothing has leaked.

import { expect, test } from "bun:test";
import { eventually } from "../support/eventually.ts";
import { expectFigure } from "../support/figures-in-bounds.ts";
import { has } from "../support/needs.ts";
import { openRaw } from "../support/raw-request.ts";
import { metricOf } from "../support/relay-books.ts";
import { RelayProcess } from "../support/relay-process.ts";
import { bySize, report } from "../support/run-size.ts";
import { type Random, randomFrom, seededRandom } from "../support/seeded-random.ts";
import { tempDir } from "../support/temp-dir.ts";

const SOAK_MS = bySize(20_000, 40_000, 1_800_000);
const CLIENTS = 24;
const KEYS = 400;
const QUIET_MS_MAX = 30_000;
const MiB = 1024 * 1024;
const VALUE_BYTES = [0, 100, 100, 1000, 20_000, 70_000, 2 * MiB];
const DESCRIPTORS_SLACK = 10;
/** Of a heap that grows and shrinks by itself. */
const GROWTH_BYTES_MAX = 40 * MiB;

type Act = (server: RelayProcess, path: string, random: Random) => Promise<unknown>;

/** Each as often as it stands here. */
const ACTS: readonly Act[] = [
  put,
  put,
  get,
  get,
  get,
  (server, path) => drained(server.fetch(path, { method: "DELETE" })),
  (server, path) => drained(server.fetch(path, { method: "HEAD" })),
  (server, path) => drained(server.fetch(`/_meta${path}`)),
  (server) => drained(server.fetch("/_list?bucket=soak&details=1")),
  (server) => drained(server.fetch("/_list?bucket=soak&prefix=1&count=1")),
  (server, path) => drained(server.fetch(path, { headers: { Range: "bytes=5-9" } })),
  (server, path) => drained(server.fetch(path, { headers: { "If-Match": '"1"' }, method: "PUT", body: "x" })),
  (server, path) => drained(server.fetch(path, { method: "PUT", body: "short-lived", headers: { "X-TTL": "1s" } })),
  (server, path) => drained(server.fetch(path, { headers: { Authorization: "Bearer nonsense" } })),
  (server, path) => drained(server.fetch(`${path}%ff`)),
  leaveUpload,
  leaveAnswer,
];

function put(server: RelayProcess, path: string, random: Random): Promise<unknown> {
  const body = new Uint8Array(VALUE_BYTES[random.below(VALUE_BYTES.length)]!);
  return drained(server.fetch(path, { method: "PUT", body, headers: { "X-Meta-Owner": "soak" } }));
}

function get(server: RelayProcess, path: string): Promise<unknown> {
  return drained(server.fetch(path));
}

async function drained(answer: Promise<Response>): Promise<void> {
  const response = await answer;
  await response.arrayBuffer();
  // Two dozen clients are not too many.
  expect(response.status).toBeLessThan(500);
}

/** A client that goes in the middle of what it sends. */
async function leaveUpload({ url }: RelayProcess, path: string): Promise<void> {
  using connection = await openRaw(url);
  connection.send(`PUT ${path} HTTP/1.1\r\nHost: ${new URL(url).host}\r\nContent-Length: 5000\r\n\r\nhalf`);
  await Bun.sleep(5);
}

/** A client that goes in the middle of what it is sent. */
async function leaveAnswer(server: RelayProcess, path: string): Promise<void> {
  const controller = new AbortController();
  const { body } = await server.fetch(path, { signal: controller.signal });
  await body?.getReader().read();
  controller.abort();
}

async function soak(server: RelayProcess, random: Random, ms: number): Promise<number> {
  const end = performance.now() + ms;
  let asked = 0;
  const work = async () => {
    const own = randomFrom(random.below(2 ** 32));
    for (; performance.now() < end; asked++) {
      await ACTS[own.below(ACTS.length)]!(server, `/soak/${own.below(KEYS)}`, own);
    }
  };
  await Promise.all(Array.from({ length: CLIENTS }, work));
  return asked;
}

/** Resolves when no body is held and the connections of the load are gone. */
async function quiet(server: RelayProcess): Promise<{ descriptors: number; bytes: number }> {
  const isFree = async () => (await metricOf(server, "gokv_body_budget_used_bytes")) === 0;
  await eventually("no body is held", QUIET_MS_MAX, isFree);
  let before = -1;
  // Idle connections are closed after some seconds.
  await eventually("the descriptors are steady", QUIET_MS_MAX, async () => {
    const last = before;
    before = server.descriptors;
    await Bun.sleep(2_000);
    return server.descriptors === last;
  });
  return { descriptors: server.descriptors, bytes: server.residentBytes };
}

if (has("/proc, to see what a process holds", process.platform === "linux")) {
  test(
    "a server that has lived through a mixed load holds nothing of it",
    async () => {
      using dir = tempDir();
      await using server = await RelayProcess.start(dir.file("data"), { METRICS: "open", WAL_LIMIT_BYTES: "8MiB" });
      const random = seededRandom("kv soak");
      const asked = [await soak(server, random, SOAK_MS / 3)];
      const early = await quiet(server);
      asked.push(await soak(server, random, (SOAK_MS * 2) / 3));
      const late = await quiet(server);
      const sizes = [early, late].map(({ bytes }) => `${Math.round(bytes / MiB)} MiB`).join(" and ");
      const open = [early, late].map(({ descriptors }) => descriptors).join(" and ");
      report(`soak of ${SOAK_MS / 1000} s, early on and at the end: ${asked} requests, descriptors ${open}, ${sizes}`);
      expect(late.descriptors).toBeLessThanOrEqual(early.descriptors + DESCRIPTORS_SLACK);
      expectFigure("memory after the soak", late.bytes, early.bytes + GROWTH_BYTES_MAX, 2);
    },
    SOAK_MS + 120_000,
  );
}
