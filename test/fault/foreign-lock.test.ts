// Another process holds the write lock of the database: reads do not notice, writes are refused in time and not lost.

import { expect, test } from "bun:test";
import { startServer } from "../support/executable.ts";
import { expectTime } from "../support/figures-in-bounds.ts";
import { holdWriteLock } from "../support/foreign-lock.ts";
import { bySize, report } from "../support/run-size.ts";
import { mint, SECRET } from "../support/targets.ts";
import { tempDir } from "../support/temp-dir.ts";

const LOCK_MS = bySize(3_000, 10_000);
/** Ten writers, ten readers. */
const CLIENTS = 10;
const WRITE_MS_MAX = 1_000;
const READ_P99_MS_MAX = 50;

interface Answer {
  readonly status: number;
  readonly ms: number;
  readonly code: string | null;
}

test(
  "while another process holds the write lock, GET is as ever and POST gets 503 within a second; then both work",
  async () => {
    using dir = tempDir();
    const env = { JWT_SECRET: SECRET, DB_PATH: dir.file("data"), READ_CACHE_BYTES: "0" };
    const server = await startServer(env);
    const headers = { Authorization: `Bearer ${await mint()}` };
    const ask = async (method: string, path: string, body?: string): Promise<Answer> => {
      const startMs = performance.now();
      const response = await fetch(`${server.url}${path}`, {
        method,
        headers,
        ...(body === undefined ? {} : { body }),
      });
      const text = await response.text();
      const code = response.status >= 400 ? (JSON.parse(text) as { code: string }).code : null;
      return { status: response.status, ms: performance.now() - startMs, code };
    };
    expect((await ask("POST", "/b/kept", "before")).status).toBe(200);

    const writes: Answer[] = [];
    const reads: Answer[] = [];
    {
      await using _ = await holdWriteLock(dir.file("data", "gokv.db"));
      const untilMs = performance.now() + LOCK_MS;
      const loop = async (into: Answer[], act: (turn: number) => Promise<Answer>) => {
        for (let turn = 0; performance.now() < untilMs; turn++) into.push(await act(turn));
      };
      await Promise.all([
        ...Array.from({ length: CLIENTS }, (_, client) =>
          loop(writes, (turn) => ask("POST", `/b/refused-${client}-${turn}`, "x")),
        ),
        ...Array.from({ length: CLIENTS }, () => loop(reads, () => ask("GET", "/b/kept"))),
      ]);
    }
    const slowest = Math.max(...writes.map(({ ms }) => ms));
    const readMs = reads.map(({ ms }) => ms).sort((a, b) => a - b);
    const p99 = readMs[Math.floor(readMs.length * 0.99)]!;
    report(
      `foreign lock of ${LOCK_MS} ms: ${writes.length} writes refused after at most ${slowest.toFixed(0)} ms, ` +
        `${reads.length} reads, p99 ${p99.toFixed(1)} ms`,
    );
    expect([...new Set(writes.map(({ status, code }) => `${status} ${code}`))]).toEqual(["503 busy"]);
    expect([...new Set(reads.map(({ status }) => status))]).toEqual([200]);
    expectTime("the slowest refusal", slowest, WRITE_MS_MAX);
    expectTime("GET beside the lock, p99", p99, READ_P99_MS_MAX);

    const later = await Promise.all(Array.from({ length: CLIENTS }, (_, n) => ask("POST", `/b/later-${n}`, "x")));
    expect(later.map(({ status }) => status)).toEqual(Array.from({ length: CLIENTS }, () => 200));
    // Nothing that was refused is there, now or after a crash; what was taken is there once.
    const expected = ["kept", ...Array.from({ length: CLIENTS }, (_, n) => `later-${n}`)].sort();
    const listOf = async (url: string) => (await fetch(`${url}/_list?bucket=b`, { headers })).json();
    expect(await listOf(server.url)).toEqual(expected);
    const revision = (await fetch(`${server.url}/b/kept`, { method: "POST", headers, body: "after" })).headers.get(
      "etag",
    );
    expect(revision).toBe(`"${CLIENTS + 2}"`);
    server.kill("SIGKILL");
    await server.exited;
    await using again = await startServer(env);
    expect(await listOf(again.url)).toEqual(expected);
  },
  LOCK_MS + 120_000,
);
