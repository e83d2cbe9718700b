// Event streams cut into events: wherever the network cut them before, and whatever stands in them.

import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { EventSplitter, isLateLineFeed, parseEvent } from "../../src/relay/event-splitter.ts";
import { expectTime } from "../support/figures-in-bounds.ts";

const MAX = 1024 * 1024;
const encode = (text: string) => new TextEncoder().encode(text);
const decode = (bytes: Uint8Array) => new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);

/** What comes out of a stream that arrives in these chunks. */
function split(chunks: readonly Uint8Array[], bytesMax = MAX) {
  const splitter = new EventSplitter(bytesMax);
  // Copied at once: an event must stay as it is while the stream goes on.
  const events = chunks.flatMap((chunk) => splitter.push(chunk)).map(decode);
  return { events, rest: decode(splitter.rest), isOversized: splitter.isOversized };
}

function splitText(...texts: readonly string[]) {
  const { events, rest } = split(texts.map(encode));
  return [...events, rest];
}

/** What the events say; the second half of a line end may come too late for its event. */
function read(events: readonly string[]) {
  return events.filter((event) => !isLateLineFeed(encode(event))).map((event) => parseEvent(encode(event)));
}

/** Every way to cut the bytes in two, and all bytes alone. */
function* cuts(bytes: Uint8Array): Generator<Uint8Array[]> {
  for (let at = 0; at <= bytes.length; at++) yield [bytes.slice(0, at), bytes.slice(at)];
  yield Array.from(bytes, (byte) => Uint8Array.of(byte));
}

const STREAMS = {
  LF: 'data: {"a":"héllo 😀"}\n\n: ping\n\nevent: x\ndata: 1\ndata: 2\n\ndata: [DONE]\n\n',
  CRLF: 'data: {"a":"日本"}\r\n\r\nevent: x\r\ndata: 1\r\ndata: 2\r\n\r\n',
  CR: "data: one\r\rdata: two\rdata: three\r\r",
  mixed: "data: a\r\n\ndata: b\n\r\ndata: c\r\rdata: d\n\rdata: e\r\n\r\n",
  "a byte order mark": "\ufeffdata: a\n\ndata: b\n\n",
  "blank lines before and between": "\n\n\r\ndata: a\n\n\n\n\ndata: b\n\n",
} as const;

const EVENTS: Record<keyof typeof STREAMS, readonly string[]> = {
  LF: ['data: {"a":"héllo 😀"}\n\n', ": ping\n\n", "event: x\ndata: 1\ndata: 2\n\n", "data: [DONE]\n\n"],
  CRLF: ['data: {"a":"日本"}\r\n\r\n', "event: x\r\ndata: 1\r\ndata: 2\r\n\r\n"],
  CR: ["data: one\r\r", "data: two\rdata: three\r\r"],
  mixed: ["data: a\r\n\n", "data: b\n\r\n", "data: c\r\r", "data: d\n\r", "data: e\r\n\r\n"],
  "a byte order mark": ["\ufeffdata: a\n\n", "data: b\n\n"],
  "blank lines before and between": ["\n\n\r\ndata: a\n\n", "\n\n\ndata: b\n\n"],
};

describe("an event stream", () => {
  for (const name of Object.keys(STREAMS) as (keyof typeof STREAMS)[]) {
    test(`with ${name} is cut behind each blank line`, () => {
      expect(split([encode(STREAMS[name])])).toEqual({ events: [...EVENTS[name]], rest: "", isOversized: false });
    });

    test(`with ${name} says the same wherever the network cut it, byte for byte`, () => {
      const bytes = encode(STREAMS[name]);
      const whole = EVENTS[name].map((event) => parseEvent(encode(event)));
      for (const chunks of cuts(bytes)) {
        const { events, rest } = split(chunks);
        expect([events.join(""), rest]).toEqual([STREAMS[name], ""]);
        expect(read(events)).toEqual(whole);
      }
    });
  }

  test("passes an event on with the last byte of it, and not before", () => {
    for (const text of ["data: 1\n\n", ": a comment\n\n", "event: a\ndata: b\r\n\r\n", "x\r\r"]) {
      const bytes = encode(text);
      const isCrlf = text.endsWith("\r\n");
      const lastNeeded = bytes.length - (isCrlf ? 2 : 1);
      const splitter = new EventSplitter(MAX);
      for (let at = 0; at <= lastNeeded; at++) {
        const events = splitter.push(bytes.subarray(at, at + 1)).map(decode);
        expect([at, events]).toEqual([at, at === lastNeeded ? [text.slice(0, lastNeeded + 1)] : []]);
      }
      if (isCrlf) expect(splitter.push(encode("\n")).map(decode)).toEqual(["\n"]);
    }
  });

  test("keeps an unfinished event, and knows an event again that began in an earlier chunk", () => {
    expect(splitText("data: a\n\ndata: b")).toEqual(["data: a\n\n", "data: b"]);
    expect(splitText("data: a\n")).toEqual(["data: a\n"]);
    expect(splitText("data: a\n", "\ndata: b\n\ndat")).toEqual(["data: a\n\n", "data: b\n\n", "dat"]);
    expect(splitText("", "data: a\r", "\n", "", "\r", "", "\ndata: b\n\n")).toEqual([
      "data: a\r\n\r",
      "\n",
      "data: b\n\n",
      "",
    ]);
    expect(splitText("data: a\r\n\r", "\n\n", "data: b\n\n")).toEqual(["data: a\r\n\r", "\n", "\ndata: b\n\n", ""]);
    expect(splitText("\n", "\n", "\n")).toEqual(["\n\n\n"]);
    expect(splitText()).toEqual([""]);
  });

  test("puts a long event together that comes in many pieces", () => {
    const text = `data: ${Array.from({ length: 3000 }, (_, index) => index).join()}\n\n`;
    const bytes = encode(text);
    for (const size of [1, 2, 1000, 1024, 1025, 5000]) {
      const count = Math.ceil(bytes.length / size);
      const chunks = Array.from({ length: count }, (_, index) => bytes.slice(index * size, (index + 1) * size));
      expect(split([...chunks, ...chunks]).events).toEqual([text, text]);
    }
  });

  test("leaves bytes alone that are no text", () => {
    const bytes = Uint8Array.from({ length: 512 }, (_, index) => index % 256);
    const stream = Buffer.concat([bytes, encode("\n\n"), bytes, encode("\n\n")]);
    for (const chunks of cuts(stream)) {
      const splitter = new EventSplitter(MAX);
      const events = chunks.flatMap((chunk) => splitter.push(chunk));
      expect(Buffer.concat([...events, splitter.rest]).equals(stream)).toBe(true);
    }
  });

  test("does not change an event that was passed on while the next ones are read", () => {
    const splitter = new EventSplitter(MAX);
    splitter.push(encode("data: fir"));
    const first = splitter.push(encode("st\n\ndata: seco"));
    const second = splitter.push(encode("nd\n\ndata: third which is longer"));
    splitter.push(encode(" than all\n\n"));
    expect([...first, ...second].map(decode)).toEqual(["data: first\n\n", "data: second\n\n"]);
  });

  test("does not depend on a chunk after it was pushed", () => {
    const splitter = new EventSplitter(MAX);
    const chunk = encode("data: begun");
    splitter.push(chunk);
    chunk.fill(0);
    expect(splitter.push(encode("\n\n")).map(decode)).toEqual(["data: begun\n\n"]);
  });

  test("reads the same when it is cut within the line end before a byte order mark", () => {
    const text = "a\r\n\r\n\ufeffdata: b\n\n";
    const cut = split([encode("a\r\n\r"), encode("\n\ufeffdata: b\n\n")]).events;
    expect(read(cut)).toEqual(read(split([encode(text)]).events));
  });

  test("comes out the same however it is cut, whatever it is made of", () => {
    const piece = fc.constantFrom(
      "\n",
      "\r",
      "\r\n",
      "data:",
      "event:",
      " ",
      "a",
      "é",
      "😀",
      ": ping",
      "\n\n",
      "\ufeff",
    );
    const stream = fc.array(piece, { maxLength: 40 }).map((pieces) => pieces.join(""));
    fc.assert(
      fc.property(stream, fc.array(fc.nat({ max: 12 }), { maxLength: 60 }), (text, sizes) => {
        const bytes = encode(text);
        const chunks: Uint8Array[] = [];
        let start = 0;
        for (const size of sizes) {
          chunks.push(bytes.slice(start, start + size));
          start += size;
        }
        chunks.push(bytes.slice(start));
        const cut = split(chunks);
        const whole = split([bytes]);
        expect(cut.events.join("") + cut.rest).toBe(text);
        expect(read(cut.events)).toEqual(read(whole.events));
      }),
      { numRuns: 2000 },
    );
  });
});

describe("the bound of an event", () => {
  const event = (length: number) => `${"x".repeat(length - 2)}\n\n`;

  test("holds for an event that comes in one piece, in two, and byte by byte", () => {
    for (const [length, isOversized] of [
      [99, false],
      [100, false],
      [101, true],
      [5000, true],
    ] as const) {
      for (const chunks of cuts(encode(event(length)))) {
        const result = split(chunks, 100);
        expect([length, result.isOversized]).toEqual([length, isOversized]);
        expect(result.events).toEqual(isOversized ? [] : [event(length)]);
      }
    }
  });

  test("lets the events before the oversized one out, and nothing behind it", () => {
    for (const chunks of cuts(encode(`data: a\n\n${event(101)}data: b\n\n`))) {
      expect(split(chunks, 100)).toMatchObject({ events: ["data: a\n\n"], isOversized: true });
    }
  });

  test("is not about the stream: many events may come in one chunk", () => {
    const { events, isOversized } = split([encode(event(100).repeat(1000))], 100);
    expect([events.length, isOversized]).toEqual([1000, false]);
  });

  test("holds for a stream that never ends a line, and for one of blank lines only", () => {
    for (const filler of ["x", "\n", "\r"]) {
      const splitter = new EventSplitter(1000);
      let pushed = 0;
      while (!splitter.isOversized && pushed < 2000) {
        expect(splitter.push(encode(filler))).toEqual([]);
        pushed++;
      }
      expect([filler, pushed]).toEqual([filler, 1001]);
      expect(splitter.rest.length).toBeLessThanOrEqual(1000);
    }
  });
});

describe("time and memory", () => {
  test("grow with the bytes, not with the number of chunks or lines", () => {
    const million = 1_000_000;
    const hostile: Record<string, readonly Uint8Array[]> = {
      "one byte at a time": Array.from({ length: million }, () => Uint8Array.of(0x61)),
      "lines of one character": [encode("a\n".repeat(million / 2))],
      "returns only": [encode("\r".repeat(million))],
      "events of one character": [encode("a\n\n".repeat(million / 3))],
    };
    for (const [name, chunks] of Object.entries(hostile)) {
      const splitter = new EventSplitter(2 * million);
      const start = performance.now();
      for (const chunk of chunks) splitter.push(chunk);
      // Squared, each of them would take minutes.
      expectTime(name, performance.now() - start, 3000);
    }
  });

  test("of reading one event grow with its bytes", () => {
    for (const text of ["data\n", "data:\r", "d:\n", "\n", "data: x\r\n", ":::::\n", "data: "]) {
      const bytes = encode(`${text.repeat(1_000_000 / text.length)}\n\n`);
      const start = performance.now();
      parseEvent(bytes);
      expectTime(text, performance.now() - start, 3000);
    }
  });
});

test("the fields of an event are read as browsers read them", () => {
  for (const [text, event, data] of [
    ['data: {"a":1}\n\n', null, '{"a":1}'],
    ["data:x\n\n", null, "x"],
    ["data:  x \n\n", null, " x "],
    ["data: x\r\n\r\n", null, "x"],
    ["data: x\r\r", null, "x"],
    ["data: a\rb: c\n\n", null, "a"],
    ["data: a\ndata: b\n\n", null, "a\nb"],
    ["data: a\ndata\ndata:\n\n", null, "a\n\n"],
    ["data:\n\n", null, ""],
    ["data\n\n", null, ""],
    ["event: done\ndata: x\n\n", "done", "x"],
    ["data: x\nevent:done\n\n", "done", "x"],
    ["event: a\nevent: b\n\n", "b", null],
    ["event\n\n", "", null],
    [": ping\n\n", null, null],
    [": ping\ndata: x\n\n", null, "x"],
    ["id: 1\nretry: 5\ndata: x\n\n", null, "x"],
    ["Data: x\ndata : y\n data: z\n\n", null, null],
    ["data: a:b: c\n\n", null, "a:b: c"],
    ["\ufeffdata: x\n\n", null, "x"],
    ["\n\n\ndata: x\n\n", null, "x"],
    ["\ndata: x\n\n", null, "x"],
    ["data: [DONE]", null, "[DONE]"],
    ["data: [DONE]\n", null, "[DONE]"],
    ["data: a\nx", null, "a"],
    ["data: é😀\u2028\n\n", null, "é😀\u2028"],
    ["data: __proto__\n\n", null, "__proto__"],
    ["\n\n", null, null],
    ["", null, null],
  ] as const) {
    expect([text, parseEvent(encode(text))]).toEqual([text, { event, data }]);
  }
  expect(parseEvent(Uint8Array.of(...encode("data: "), 0xff, 0xc3, 0x0a, 0x0a)).data).toBe("\ufffd\ufffd");
});
