// Every fault of every provider, for a while: afterwards nothing is held, nothing has leaked, and the books agree.

import { expect, test } from "bun:test";
import { eventually } from "../support/eventually.ts";
import { FaultUpstream } from "../support/fault-upstream.ts";
import { expectFigure } from "../support/figures-in-bounds.ts";
import { has } from "../support/needs.ts";
import { metricOf, mistakesIn, readBooks } from "../support/relay-books.ts";
import { chat, makeChannel, makeToken, managed } from "../support/relay-client.ts";
import { answerSoon, mixedFaults, RelayLoad } from "../support/relay-load.ts";
import { RelayProcess } from "../support/relay-process.ts";
import { bySize, report } from "../support/run-size.ts";
import { seededRandom } from "../support/seeded-random.ts";
import { tempDir } from "../support/temp-dir.ts";

const SOAK_MS = bySize(20_000, 30_000, 1_800_000);
const CHANNELS = 6;
const GRANTED = 1_000_000_000;
const QUIET_MS_MAX = 20_000;
/** Connections to upstreams that are kept for later, and the like. */
const DESCRIPTORS_SLACK = 100;
/** Of a heap that was never collected whole. */
const GROWTH_BYTES_MAX = 60e6;
const MB = 1e6;

interface Measured {
  readonly descriptors: number;
  readonly bytes: number;
}

if (has("/proc, to see what a process holds", process.platform === "linux")) {
  test(
    "a relay that has lived through every fault holds nothing of it",
    async () => {
      using dir = tempDir();
      await using upstream = await FaultUpstream.start();
      const random = seededRandom("relay soak");
      const env = { METRICS: "open", RELAY_EVENT_MAX: "65536", RELAY_TTFT_MS: "2000", RELAY_TOTAL_MS: "5000" };
      await using relay = await RelayProcess.start(dir.file("data"), env);
      for (let index = 0; index < CHANNELS; index++) {
        await makeChannel(relay, upstream, { name: `channel ${index}`, auto_ban: false, priority: index % 2 });
      }
      const finite = await makeToken(relay, { remain_quota: GRANTED });
      const narrow = await makeToken(relay, { remain_quota: GRANTED, max_parallel: 3, tpm: 1_000_000, rpm: 100_000 });
      const unlimited = await makeToken(relay);
      const options = { random, leaves: 0.15, streams: 0.6 };
      const inPhase = async (ms: number): Promise<Measured> => {
        upstream.always(mixedFaults(random));
        const loads = [finite, narrow, unlimited].map((token) => new RelayLoad(relay, token, options).start(10));
        const end = performance.now() + ms;
        while (performance.now() < end) {
          await Bun.sleep(500);
          // Breakers that are open would leave nothing to test.
          for (const { id } of await managed<{ id: number }[]>(relay, "GET", "/api/channel")) {
            await managed(relay, "POST", `/api/channel/${id}/reset`);
          }
        }
        await Promise.all(loads.map((load) => load.stop()));
        tally(loads);
        upstream.always(answerSoon);
        await quiet(relay);
        return { descriptors: relay.descriptors, bytes: relay.residentBytes };
      };
      const warm = await inPhase(SOAK_MS / 3);
      const end = await inPhase((SOAK_MS * 2) / 3);
      const sizes = [warm, end].map(({ bytes }) => (bytes / MB).toFixed(0)).join(" and ");
      const open = [warm, end].map(({ descriptors }) => descriptors).join(" and ");
      report(
        `soak of ${SOAK_MS / 1000} s, early on and at the end: ${upstream.requests.length} upstream requests, ` +
          `descriptors ${open}, ${sizes} MB`,
      );
      expect(upstream.mistakes).toEqual([]);
      expect(end.descriptors).toBeLessThanOrEqual(warm.descriptors + DESCRIPTORS_SLACK);
      expectFigure("memory after the soak", end.bytes, warm.bytes + GROWTH_BYTES_MAX, 2);
      expect(await metricOf(relay, "gokv_relay_log_dropped_total")).toBe(0);
      for (const token of [finite, narrow]) {
        expect(mistakesIn(readBooks(relay.dbPath, token.id), GRANTED)).toEqual([]);
      }
      const { used, logged, rows } = readBooks(relay.dbPath, unlimited.id);
      expect([used, rows > 100]).toEqual([logged, true]);
      // All three places of the narrow one are free.
      for (const { id } of await managed<{ id: number }[]>(relay, "GET", "/api/channel")) {
        await managed(relay, "POST", `/api/channel/${id}/reset`);
      }
      const last = await Promise.all([1, 2, 3].map(() => chat(relay, narrow.key)));
      expect(last.map(({ status }) => status)).toEqual([200, 200, 200]);
    },
    SOAK_MS + 90_000,
  );
}

/** Says what clients were told. */
function tally(loads: readonly RelayLoad[]): void {
  for (const { asked, failed, statuses } of loads) {
    const told = [...statuses].sort(([a], [b]) => a - b).map(([status, count]) => `${status} × ${count}`);
    report(`soak: ${asked} asked, ${failed} left or cut, ${told.join(", ")}`);
  }
}

/** Resolves when no request is at work, no row waits, nothing is set aside. */
async function quiet(relay: RelayProcess): Promise<void> {
  for (const name of ["gokv_relay_inflight", "gokv_relay_log_queue"]) {
    await eventually(`${name} is 0`, QUIET_MS_MAX, async () => (await metricOf(relay, name)) === 0);
  }
  const tokens = await managed<{ id: number }[]>(relay, "GET", "/api/token");
  await eventually("nothing is set aside", QUIET_MS_MAX, () => {
    return tokens.every(({ id }) => readBooks(relay.dbPath, id).reservations === 0);
  });
}
