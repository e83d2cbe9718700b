// The list of failures at the end of a log: complete, readable, and short enough to be seen.

import { describe, expect, test } from "bun:test";
import { endOf, failedTests, formatFailed } from "../../scripts/failed-tests.ts";

const REPORT = `<testsuites name="bun test" tests="4" failures="3">
  <testsuite name="test/a.test.ts" file="test/a.test.ts" tests="4" failures="3">
    <testcase name="passes" classname="" time="0.1" file="test/a.test.ts" line="1" assertions="1" />
    <testcase name="differs" classname="a &quot;group&quot; &gt; inner" time="0.1" file="test/a.test.ts" assertions="1">
      <failure type="AssertionError" message="m">AssertionError: 1 &lt; 2&#10;&#10;Received: &amp;lt;&#10;</failure>
    </testcase>
    <testcase name="times out" classname="" time="5" file="test/a.test.ts" line="9" assertions="0">
      <failure type="TimeoutError" message="after 5000 ms" />
    </testcase>
    <testcase name="says nothing" classname="" file="test/a.test.ts">
      <failure type="AssertionError" />
    </testcase>
  </testsuite>
</testsuites>`;

const failures = (count: number, lines: number) =>
  Array.from({ length: count }, (_, index) => ({ name: `t${index}`, file: "f.ts", error: "line\n".repeat(lines) }));

describe("the failed tests of a report", () => {
  test("are told by name, file and error, and nothing else is", () => {
    expect(failedTests(REPORT)).toEqual([
      { name: 'a "group" > inner > differs', file: "test/a.test.ts", error: "AssertionError: 1 < 2\n\nReceived: &lt;" },
      { name: "times out", file: "test/a.test.ts", error: "after 5000 ms" },
      { name: "says nothing", file: "test/a.test.ts", error: "AssertionError" },
    ]);
    expect(failedTests("")).toEqual([]);
  });

  test("are listed with the first lines of their errors", () => {
    expect(formatFailed("unit", failedTests(REPORT)).split("\n")).toEqual([
      'failed in unit: a "group" > inner > differs (test/a.test.ts)',
      "    AssertionError: 1 < 2",
      "    Received: &lt;",
      "failed in unit: times out (test/a.test.ts)",
      "    after 5000 ms",
      "failed in unit: says nothing (test/a.test.ts)",
      "    AssertionError",
    ]);
  });

  test("fit at the end of a log, however many there are and however much they say", () => {
    for (const count of [1, 2, 3, 5, 12, 100]) {
      const text = formatFailed("unit", failures(count, 50));
      expect(text.split("\n").length).toBeLessThanOrEqual(38);
      for (let index = 0; index < Math.min(count, 12); index++) expect(text).toContain(`t${index} (f.ts)`);
      expect(text.endsWith("and 88 more")).toBe(count === 100);
    }
    expect(formatFailed("unit", [{ name: "long", file: "", error: "x".repeat(1000) }]).length).toBeLessThan(300);
  });
});

test("the end of an output is its last lines that say anything", () => {
  expect(endOf(`${"a\n".repeat(30)}\n\nb\n\n`).split("\n")).toEqual([..."a".repeat(11), "b"]);
});
