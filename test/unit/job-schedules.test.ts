// Times of schedules: in UTC wherever the server stands, and one time due however many were missed.

import { describe, expect, test } from "bun:test";
import { dueFireMs, nextFireMs } from "../../src/jobs/job-schedules.ts";

const at = (text: string) => Date.parse(text);

describe("the next time of a schedule", () => {
  test("is after the given one, never the same", () => {
    expect(nextFireMs("37 * * * *", at("2026-01-05T08:36:59.999Z"))).toBe(at("2026-01-05T08:37:00Z"));
    expect(nextFireMs("37 * * * *", at("2026-01-05T08:37:00Z"))).toBe(at("2026-01-05T09:37:00Z"));
  });

  test("is in UTC in every time zone, also when clocks are set", () => {
    const code = `import { nextFireMs } from "${import.meta.dir}/../../src/jobs/job-schedules.ts";
      console.log(nextFireMs("17 3 * * *", Date.parse("2026-03-28T12:00:00Z")));`;
    for (const TZ of ["America/New_York", "Europe/Berlin", "Asia/Kathmandu"]) {
      const { stdout } = Bun.spawnSync([process.execPath, "-e", code], { env: { ...process.env, TZ } });
      expect(Number(stdout.toString())).toBe(at("2026-03-29T03:17:00Z"));
    }
  });

  test("is null for a day that never comes", () => {
    expect(nextFireMs("0 0 30 2 *", at("2026-01-05T08:00:00Z"))).toBeNull();
  });
});

describe("the due time of a schedule", () => {
  const due = (after: string, now: string, expression = "7 * * * *") => dueFireMs(expression, at(after), at(now));

  test("is none before it has come", () => {
    expect(due("2026-01-05T08:07:00Z", "2026-01-05T09:06:59.999Z")).toBeNull();
    expect(due("2026-01-05T08:07:00Z", "2026-01-05T07:00:00Z")).toBeNull();
  });

  test("is the time that has come", () => {
    expect(due("2026-01-05T08:07:00Z", "2026-01-05T09:07:00Z")).toBe(at("2026-01-05T09:07:00Z"));
  });

  test("is the last one of all that were missed", () => {
    for (const now of ["2026-01-05T13:06:59Z", "2026-01-05T12:07:00Z"]) {
      expect(due("2026-01-05T08:07:00Z", now)).toBe(at("2026-01-05T12:07:00Z"));
    }
    expect(due("2020-01-05T08:07:00Z", "2026-06-05T12:08:00Z")).toBe(at("2026-06-05T12:07:00Z"));
    expect(due("2020-01-05T08:07:00Z", "2026-06-05T12:08:30Z", "* * * * *")).toBe(at("2026-06-05T12:08:00Z"));
    expect(due("2020-01-05T08:07:00Z", "2026-06-05T12:08:30Z", "0 0 29 2 *")).toBe(at("2024-02-29T00:00:00Z"));
  });

  test("agrees with a walk through all times, for random spans", () => {
    const now = at("2026-06-05T12:08:30Z");
    for (let span = 1; span < 5e8; span = Math.ceil(span * 1.7)) {
      let expected: number | null = null;
      for (let next = nextFireMs("*/13 3-9 * * 1-4", now - span); next! <= now; ) {
        expected = next;
        next = nextFireMs("*/13 3-9 * * 1-4", next!);
      }
      expect(dueFireMs("*/13 3-9 * * 1-4", now - span, now)).toBe(expected);
    }
  });
});
