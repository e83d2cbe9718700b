// The log as another program reads it: one line per message, whatever stands in its properties.

import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import type { LogProperties } from "../../src/shared/log.ts";
import { cleanEnv, ROOT } from "../support/executable.ts";

type Level = "debug" | "info" | "warn" | "error" | "fatal";
type Message = readonly [level: Level, message: string, properties?: LogProperties];
interface LogSettings {
  readonly mode: "debug" | "release" | "test";
  readonly logLevel: "debug" | "info" | "warn" | "error";
}

/** What a process of its own writes to stderr: the log goes past everything that could be replaced in this one. */
function linesOf(settings: LogSettings, messages: readonly Message[], ending = "log.flush();"): string[] {
  const program = `
    import { openLog } from ${JSON.stringify(join(ROOT, "src/shared/log.ts"))};
    const log = openLog(${JSON.stringify(settings)});
    for (const [level, message, properties] of ${JSON.stringify(messages)}) log[level](message, properties);
    ${ending}`;
  const child = Bun.spawnSync([process.execPath, "-e", program], { cwd: ROOT, env: cleanEnv({}) });
  expect(child.stdout.toString()).toBe("");
  const text = child.stderr.toString();
  return text === "" ? [] : text.replace(/\n$/, "").split("\n");
}

const LEVELS: readonly Level[] = ["debug", "info", "warn", "error", "fatal"];
const ONE_EACH: readonly Message[] = LEVELS.map((level) => [level, `a ${level} message`]);
const HOSTILE = 'line\nbreak\r\u001b[31m \u009b31m \u007f \u0085 "quoted" \\ \u0000 é😀 {name} %s';
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const CONTROL = /[\u0000-\u001f\u007f-\u009f]/;

describe("the log in release mode", () => {
  const release = (logLevel: LogSettings["logLevel"] = "info"): LogSettings => ({ mode: "release", logLevel });

  test("is one JSON object per line, with time, level and message first", () => {
    const [line, ...rest] = linesOf(release(), [["info", "listening", { port: 8080, url: "http://h/", gone: null }]]);
    expect(rest).toEqual([]);
    const { time, ...others } = JSON.parse(line!);
    expect(others).toEqual({ level: "info", msg: "listening", port: 8080, url: "http://h/", gone: null });
    expect(Object.keys(JSON.parse(line!)).slice(0, 3)).toEqual(["time", "level", "msg"]);
    expect(new Date(time).toISOString()).toBe(time);
    expect(Math.abs(Date.now() - Date.parse(time))).toBeLessThan(60_000);
  });

  test("keeps hostile text in one line and gives it back unchanged", () => {
    const lines = linesOf(release(), [
      ["warn", "first", { path: HOSTILE, [HOSTILE]: 1 }],
      ["warn", "second"],
    ]);
    expect(lines.map((line) => JSON.parse(line).msg)).toEqual(["first", "second"]);
    expect(JSON.parse(lines[0]!)).toMatchObject({ path: HOSTILE, [HOSTILE]: 1 });
    expect(lines[0]).not.toMatch(CONTROL);
  });

  test("never fills placeholders of a message from its properties", () => {
    const [line] = linesOf(release(), [["info", "a {name} stays", { name: "value" }]]);
    expect(JSON.parse(line!).msg).toBe("a {name} stays");
  });

  test("leaves out what lies below the level", () => {
    const levelsAt = (logLevel: LogSettings["logLevel"]) =>
      linesOf(release(logLevel), ONE_EACH).map((line) => JSON.parse(line).level);
    expect(levelsAt("debug")).toEqual(["debug", "info", "warning", "error", "fatal"]);
    expect(levelsAt("info")).toEqual(["info", "warning", "error", "fatal"]);
    expect(levelsAt("warn")).toEqual(["warning", "error", "fatal"]);
    expect(levelsAt("error")).toEqual(["error", "fatal"]);
  });

  test("writes a fatal line at once, behind what was gathered before it", () => {
    const die = 'process.kill(process.pid, "SIGKILL"); await new Promise(() => {});';
    expect(linesOf(release(), [["info", "gathered"]], die)).toEqual([]);
    const lines = linesOf(
      release(),
      [
        ["info", "earlier"],
        ["fatal", "the end", { reason: "r" }],
      ],
      die,
    );
    expect(lines.map((line) => JSON.parse(line).msg)).toEqual(["earlier", "the end"]);
  });
});

describe("the log in debug mode", () => {
  const debug: LogSettings = { mode: "debug", logLevel: "info" };

  test("is readable, without colours, properties behind the message", () => {
    const [line] = linesOf(debug, [["info", "request", { status: 200, path: "/a/b", sub: null, ms: 0.5, who: "a b" }]]);
    expect(line).toMatch(/^\d\d:\d\d:\d\d\.\d{3} info {4}request status=200 path=\/a\/b ms=0.5 who="a b"$/);
  });

  test("keeps hostile text in one line", () => {
    const lines = linesOf(debug, [
      ["info", "first", { path: HOSTILE }],
      ["info", "second"],
    ]);
    expect(lines).toHaveLength(2);
    expect(lines[0]).not.toMatch(CONTROL);
    expect(JSON.parse(lines[0]!.slice(lines[0]!.indexOf("path=") + 5))).toBe(HOSTILE);
  });
});

test("the log in test mode holds errors only, whatever the level", () => {
  const lines = linesOf({ mode: "test", logLevel: "debug" }, ONE_EACH);
  expect(lines.map((line) => line.replace(/^\S+ /, ""))).toEqual([
    "error   a error message",
    "fatal   a fatal message",
  ]);
});
