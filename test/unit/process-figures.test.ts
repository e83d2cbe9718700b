// What a scrape tells: figures of the process that begin with the first one and are those of its whole life, and none
// that are older than the question.

import { expect, test } from "bun:test";
import { Gauge } from "prom-client";
import { Metrics } from "../../src/http/metrics.ts";

test("the first scrape tells the processor time since the start, and only numbers", async () => {
  const metrics = new Metrics("3.51.3");
  const { user, system } = process.cpuUsage();
  const usedSeconds = (user + system) / 1e6;
  // Two at once: only one of them sets the figures up.
  const [{ text }] = await Promise.all([metrics.render(), metrics.render()]);
  const total = Number(/^process_cpu_seconds_total (\S+)/m.exec(text)?.[1]);
  expect(total).toBeGreaterThanOrEqual(usedSeconds);
  expect(text).not.toMatch(/nan/i);
  expect(text).toContain("nodejs_eventloop_lag_mean_seconds");
});

test("scrapes that come together are one, and a later one does not share what was gathered before", async () => {
  const metrics = new Metrics("3.51.3");
  let gathered = 0;
  new Gauge({
    name: "test_gathered",
    help: "How often figures were gathered.",
    registers: [metrics.registry],
    async collect() {
      this.set(++gathered);
      await Bun.sleep(0);
    },
  });
  const toldBy = async () => Number(/^test_gathered (\d+)$/m.exec((await metrics.render()).text)![1]);
  const together = Array.from({ length: 100 }, toldBy);
  await together[0];
  const later = Array.from({ length: 100 }, toldBy);
  expect(new Set(await Promise.all(together))).toEqual(new Set([1]));
  expect(new Set(await Promise.all(later))).toEqual(new Set([2]));
});
