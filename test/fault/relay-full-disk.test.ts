// A volume that is full: tokens without a quota go on, their rows wait; tokens with one are refused, as are changes.

import { expect, test } from "bun:test";
import { closeSync, openSync, rmSync, writeSync } from "node:fs";
import { join } from "node:path";
import { eventually } from "../support/eventually.ts";
import { FaultUpstream } from "../support/fault-upstream.ts";
import { has, isRoot } from "../support/needs.ts";
import { chatAnswer, metricOf, mistakesIn, readBooks, settledBooks } from "../support/relay-books.ts";
import { chat, chatCode, makeChannel, makeToken, manage, managed, refusalOf } from "../support/relay-client.ts";
import { RelayProcess } from "../support/relay-process.ts";
import { report } from "../support/run-size.ts";
import { mountSmallVolume } from "../support/small-volume.ts";
import { afterwards, answerJson } from "../support/upstream-plans.ts";

const MiB = 1024 * 1024;
const FULL_MS_MAX = 20_000;
const AGAIN_MS_MAX = 20_000;
const GRANTED = 100_000;
const WAITING_ROWS_MAX = 10_000;
/** So many that some find no place to wait. */
const REQUESTS = WAITING_ROWS_MAX + 600;
const PARALLEL = 40;
const USAGE = { prompt_tokens: 3, completion_tokens: 4 };

/** Takes every byte of a volume that is free, also what comes free later. */
class Ballast implements Disposable {
  readonly #path: string;
  readonly #file: number;
  #timer: ReturnType<typeof setInterval> | null;

  constructor(path: string) {
    this.#path = path;
    this.#file = openSync(path, "w");
    this.#fill();
    this.#timer = setInterval(() => this.#fill(), 10);
  }

  #fill(): void {
    for (const block of [new Uint8Array(MiB), new Uint8Array(4096)]) {
      try {
        while (writeSync(this.#file, block) === block.length);
      } catch (error) {
        expect((error as NodeJS.ErrnoException).code).toBe("ENOSPC");
      }
    }
  }

  [Symbol.dispose](): void {
    if (this.#timer === null) return;
    clearInterval(this.#timer);
    this.#timer = null;
    closeSync(this.#file);
    rmSync(this.#path);
  }
}

if (has("root, to mount a small volume", isRoot())) {
  test("a full volume stops finite tokens and changes alone, and nothing of what was used is lost", async () => {
    using volume = mountSmallVolume(16 * MiB);
    await using upstream = await FaultUpstream.start();
    upstream.always(answerJson(chatAnswer("yes", USAGE)));
    await using relay = await RelayProcess.start(join(volume.path, "data"), { METRICS: "open" });
    await makeChannel(relay, upstream);
    const finite = await makeToken(relay, { name: "finite", remain_quota: GRANTED });
    const unlimited = await makeToken(relay, { name: "unlimited" });
    const release = Promise.withResolvers<void>();
    upstream.next(afterwards(release.promise, answerJson(chatAnswer("at last", USAGE))));
    const held = chat(relay, finite.key);
    await upstream.request(0);
    const change = () => manage(relay, "PUT", `/api/token/${finite.id}`, { name: "x".repeat(100) });
    using ballast = new Ballast(join(volume.path, "ballast"));
    await eventually("the store is full", FULL_MS_MAX, async () => {
      const [answer, changed] = [await chat(relay, finite.key), await change()];
      return answer.status === 503 && changed.status === 507;
    });
    const granted = readBooks(relay.dbPath, finite.id);
    const seen = upstream.requests.length;

    const refused = await chat(relay, finite.key);
    expect([refused.status, refused.headers.get("retry-after")]).toEqual([503, "1"]);
    expect(await chatCode(refused)).toBe("quota_store_unavailable");
    expect(upstream.requests).toHaveLength(seen);
    expect(await refusalOf(await change())).toMatchObject({ status: 507, code: "storage_full" });
    for (const [path, body] of [
      ["/api/token", { name: "new" }],
      ["/api/channel", { type: "Custom", name: "new", key: "sk-mock-0123456789", base_url: upstream.url }],
    ] as const) {
      expect([path, (await manage(relay, "POST", path, body)).status]).toEqual([path, 507]);
    }
    expect(await managed<unknown[]>(relay, "GET", "/api/channel")).toHaveLength(1);
    release.resolve();
    expect((await held).status).toBe(200);
    let sent = 0;
    const clients = Array.from({ length: PARALLEL }, async () => {
      for (; sent < REQUESTS; ) {
        sent++;
        expect((await chat(relay, unlimited.key)).status).toBe(200);
      }
    });
    await Promise.all(clients);
    // Still so: nothing came free meanwhile.
    expect((await change()).status).toBe(507);
    const waiting = await metricOf(relay, "gokv_relay_log_queue");
    expect(waiting).toBe(Math.min(REQUESTS, WAITING_ROWS_MAX));
    expect(await metricOf(relay, "gokv_relay_log_dropped_total")).toBe(REQUESTS - waiting);
    expect(readBooks(relay.dbPath, unlimited.id)).toMatchObject({ rows: 0, used: 0 });
    expect(readBooks(relay.dbPath, finite.id)).toEqual(granted);
    // The call that is held, and maybe the last one that was answered before: its row found no room.
    expect(granted.reservations).toBeWithin(1, 3);

    const freedMs = performance.now();
    ballast[Symbol.dispose]();
    expect(await settledBooks(relay, unlimited.id, waiting)).toMatchObject({
      used: waiting * 7,
      logged: waiting * 7,
    });
    await eventually("finite tokens pass", AGAIN_MS_MAX, async () => (await chat(relay, finite.key)).ok);
    report(
      `full disk: ${waiting} rows were written ${Math.round(performance.now() - freedMs)} ms after there was room`,
    );
    expect((await manage(relay, "POST", "/api/token", { name: "new" })).status).toBe(201);
    // What was answered before the volume was full, what was set aside for then, the one just now.
    const books = await settledBooks(relay, finite.id, granted.rows + granted.reservations + 1);
    expect(mistakesIn(books, GRANTED)).toEqual([]);
    expect(books.used).toBe(7 * books.rows);
    await eventually("no row waits", AGAIN_MS_MAX, async () => (await metricOf(relay, "gokv_relay_log_queue")) === 0);
    relay.kill("SIGTERM");
    expect(await relay.exited).toBe(0);
  }, 360_000);
}
