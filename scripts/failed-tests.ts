// What failed in a run of tests, from the report that it leaves, as a list that fits at the end of a log.

export interface Failed {
  /** With those of the groups around it. */
  readonly name: string;
  readonly file: string;
  readonly error: string;
}

/** With their headings: so many lines of a log are looked at first, and often nothing else. */
const LINES_MAX = 36;
const ERROR_LINES_MAX = 12;
const LISTED_MAX = 12;
const LINE_LENGTH_MAX = 200;

const ENTITIES: Readonly<Record<string, string>> = { lt: "<", gt: ">", quot: '"', apos: "'", amp: "&" };

/** The failed tests of a report in the JUnit format. */
export function failedTests(report: string): Failed[] {
  const failed: Failed[] = [];
  for (const [, attributes = "", body = ""] of report.matchAll(/<testcase ([^>]*[^/])>(.*?)<\/testcase>/gs)) {
    const found = /<(?:failure|error)\b([^>]*?)(?:\/>|>(.*?)<\/(?:failure|error)>)/s.exec(body);
    if (found === null) continue;
    const groups = attributeOf(attributes, "classname");
    const name = attributeOf(attributes, "name");
    const [, own = "", text = ""] = found;
    const error = unescaped(text).trim() || attributeOf(own, "message") || attributeOf(own, "type");
    failed.push({ name: groups === "" ? name : `${groups} > ${name}`, file: attributeOf(attributes, "file"), error });
  }
  return failed;
}

/** Each with the beginning of its error, which is the shorter the more there are. */
export function formatFailed(step: string, failed: readonly Failed[]): string {
  const listed = failed.slice(0, LISTED_MAX);
  const linesEach = Math.max(1, Math.min(ERROR_LINES_MAX, Math.floor(LINES_MAX / listed.length) - 1));
  const lines = listed.flatMap(({ name, file, error }) => [
    `failed in ${step}: ${name}${file === "" ? "" : ` (${file})`}`,
    ...linesOf(error)
      .slice(0, linesEach)
      .map((line) => `    ${line}`),
  ]);
  if (failed.length > listed.length) lines.push(`and ${failed.length - listed.length} more`);
  return lines.map((line) => line.slice(0, LINE_LENGTH_MAX)).join("\n");
}

/** The last lines of what a step has printed that is no run of tests, or one that has left no report. */
export function endOf(output: string): string {
  return linesOf(output).slice(-ERROR_LINES_MAX).join("\n");
}

function linesOf(text: string): string[] {
  return text.split("\n").filter((line) => line.trim() !== "");
}

function attributeOf(attributes: string, name: string): string {
  return unescaped(new RegExp(`(?:^|\\s)${name}="([^"]*)"`).exec(attributes)?.[1] ?? "");
}

function unescaped(text: string): string {
  return text.replace(/&(?:#(\d+)|#x([0-9a-f]+)|(\w+));/gi, (whole, decimal, hexadecimal, name) => {
    if (decimal !== undefined) return String.fromCodePoint(Number(decimal));
    if (hexadecimal !== undefined) return String.fromCodePoint(Number.parseInt(hexadecimal, 16));
    return ENTITIES[name] ?? whole;
  });
}
