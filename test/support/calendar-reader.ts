// A strict reader of iCalendar files (RFC 5545) with to-dos: anything the grammar does not allow is an error.

export type Todo = Readonly<Record<string, string | readonly string[]>>;

const LINE_OCTETS_MAX = 75;
const DATE_TIME = /^\d{8}T\d{6}Z$/;
const TIMES = ["DTSTAMP", "CREATED", "LAST-MODIFIED", "DUE", "COMPLETED"];
const NUMBERS = ["SEQUENCE", "PRIORITY"];
const TEXTS = ["SUMMARY", "DESCRIPTION", "UID"];
const STATUSES = ["NEEDS-ACTION", "IN-PROCESS", "COMPLETED", "CANCELLED"];

/** The to-dos of one calendar, by property. @throws Error for what a strict parser would not take */
export function readCalendar(bytes: Uint8Array): Todo[] {
  const lines = unfold(bytes);
  if (lines.shift() !== "BEGIN:VCALENDAR" || lines.pop() !== "END:VCALENDAR") throw new Error("no calendar");
  if (!lines.some((line) => line.startsWith("BEGIN:"))) throw new Error("no component");
  skipTimeZones(lines);
  const first = lines.indexOf("BEGIN:VTODO");
  const head = (first < 0 ? lines : lines.slice(0, first)).map((line) => line.split(":")[0]);
  for (const name of ["VERSION", "PRODID"]) if (!head.includes(name)) throw new Error(`no ${name}`);
  const todos: Todo[] = [];
  for (let rest = first < 0 ? [] : lines.slice(first); rest.length > 0; ) {
    const end = rest.indexOf("END:VTODO");
    if (rest[0] !== "BEGIN:VTODO" || end < 0) throw new Error("to-dos do not follow each other");
    todos.push(readTodo(rest.slice(1, end)));
    rest = rest.slice(end + 1);
  }
  return todos;
}

/** Takes time zones out, each with the parts that it needs (section 3.6.5). */
function skipTimeZones(lines: string[]): void {
  for (let from = lines.indexOf("BEGIN:VTIMEZONE"); from >= 0; from = lines.indexOf("BEGIN:VTIMEZONE")) {
    const to = lines.indexOf("END:VTIMEZONE", from);
    const [begin, id, ...rest] = lines.splice(from, to - from + 1);
    if (to < 0 || begin === undefined || !id?.startsWith("TZID:")) throw new Error("a time zone without end or name");
    const part = rest.slice(0, -1).join("\n");
    const observance = /^BEGIN:STANDARD\nDTSTART:\d{8}T\d{6}\nTZOFFSETFROM:[+-]\d{4}\nTZOFFSETTO:[+-]\d{4}\n/;
    if (!observance.test(part) || !part.endsWith("\nEND:STANDARD")) throw new Error("a time zone without a rule");
  }
}

/** Content lines (section 3.1): of at most 75 octets each before they are joined, and each of them valid UTF-8. */
function unfold(bytes: Uint8Array): string[] {
  const raw = Buffer.from(bytes).toString("latin1");
  if (!raw.endsWith("\r\n")) throw new Error("the last line has no end");
  const physical = raw.slice(0, -2).split("\r\n");
  const lines: string[] = [];
  for (const line of physical) {
    if (/[\r\n]/.test(line)) throw new Error("a line end that is not CRLF");
    if (line.length > LINE_OCTETS_MAX) throw new Error(`a line of ${line.length} octets`);
    const text = new TextDecoder("utf-8", { fatal: true }).decode(Buffer.from(line, "latin1"));
    if (text.startsWith(" ")) lines.push(`${lines.pop()}${text.slice(1)}`);
    else lines.push(text);
  }
  return lines;
}

function readTodo(lines: readonly string[]): Todo {
  const todo: Record<string, string | string[]> = {};
  for (const line of lines) {
    const [, name, value] = /^([A-Z-]+):(.*)$/s.exec(line) ?? [];
    if (name === undefined || value === undefined) throw new Error(`no content line: ${line}`);
    if (name in todo) throw new Error(`${name} stands twice`);
    todo[name] = readValue(name, value);
  }
  for (const name of ["UID", "DTSTAMP"]) if (!(name in todo)) throw new Error(`no ${name}`);
  return todo;
}

function readValue(name: string, value: string): string | string[] {
  if (TIMES.includes(name) && !DATE_TIME.test(value)) throw new Error(`${name} is no time: ${value}`);
  if (NUMBERS.includes(name) && !/^\d+$/.test(value)) throw new Error(`${name} is no number: ${value}`);
  if (name === "STATUS" && !STATUSES.includes(value)) throw new Error(`no status: ${value}`);
  if (name === "CATEGORIES") return value.split(/(?<!\\),/).map(readText);
  return TEXTS.includes(name) ? readText(value) : value;
}

/** Section 3.3.11. */
function readText(value: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  if (/[\x00-\x08\x0a-\x1f\x7f]/.test(value)) throw new Error("a control character in a text");
  if (/(?<!\\)(?:\\\\)*(?:\\[^\\;,nN]|\\$)/.test(value)) throw new Error("an escape that there is not");
  if (/[;,]/.test(value.replace(/\\./g, ""))) throw new Error("a bare comma or semicolon in a text");
  return value.replace(/\\(.)/g, (_, character: string) => (/n/i.test(character) ? "\n" : character));
}
