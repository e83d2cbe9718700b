// The figures of the process begin with the first scrape, and are those of its whole life nevertheless.

import { expect, test } from "bun:test";
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
