// Bytes that no proper client sends: each gets the expected class of answer, no request that is hidden in another one
// runs, what was stored stays as it was, and the next proper request works.

import { describe, expect, test } from "bun:test";
import { put, read } from "../support/kv-requests.ts";
import { type RawAnswer, type RawOptions, sendRaw } from "../support/raw-request.ts";
import { mint, type OpenTarget, type Target } from "../support/targets.ts";
import { useTarget } from "../support/use-target.ts";

const ROWS_MIN = 70;
const CLOSED_WITHIN_MS = 30_000;
const SILENT: RawOptions = { quietMs: 150 };
const HALF_CLOSED: RawOptions = { isHalfClosed: true };

export function rawHttpSuite(name: string, open: OpenTarget): void {
  describe(`raw HTTP on ${name}`, () => {
    const target = useTarget(open);
    const bearer = mint().then((token) => `Bearer ${token}`);
    let rows = 0;
    for (const [group, makeRows] of Object.entries(GROUPS)) {
      for (const [index, { name: rowName }] of makeRows("", "/raw").entries()) {
        const at = `/raw-${rows++}`;
        test.concurrent(`${group}: ${rowName}`, async () => {
          // A token that was verified before: reads are then answered at once, as pipelines of them need.
          await put(target(), `${at}/kept`, "old", { Authorization: await bearer });
          await checkRow(target(), makeRows(`Authorization: ${await bearer}\r\n`, at)[index]!, at);
        });
      }
    }
    test("there are enough of them", () => expect(rows).toBeGreaterThanOrEqual(ROWS_MIN));
  });
}

interface Row {
  readonly name: string;
  readonly bytes: string | readonly string[];
  /** Status codes in order; none = no answer. */
  readonly statuses: readonly number[];
  readonly isClosed: boolean;
  /** Code in the JSON of the last answer; null = an answer of the runtime, without a body, or a success. */
  readonly code: string | null;
  /** What the key "kept" holds afterwards; null = either the old value or the one that was sent. */
  readonly kept: string | null;
  readonly options: RawOptions;
}

/** `auth` is the Authorization line with its end, `at` the path of the bucket that is this row's own. */
type MakeRows = (auth: string, at: string) => Row[];

/** The runtime refuses it by itself and ends the connection. */
function refused(name: string, bytes: Row["bytes"], status = 400): Row {
  return { name, bytes, statuses: [status], isClosed: true, code: null, kept: "old", options: {} };
}

/** The server answers and goes on with the connection, unless `more` says otherwise. */
function answered(name: string, bytes: Row["bytes"], status: number, more: Partial<Row> = {}): Row {
  return { name, bytes, statuses: [status], isClosed: false, code: null, kept: "old", options: {}, ...more };
}

/** No answer at all. */
function unanswered(name: string, bytes: Row["bytes"], isClosed: boolean, options: RawOptions = {}): Row {
  return { name, bytes, statuses: [], isClosed, code: null, kept: "old", options };
}

async function checkRow(target: Target, row: Row, at: string): Promise<void> {
  // A connection that is to be closed ends the wait by itself.
  const quiet = row.isClosed ? { quietMs: CLOSED_WITHIN_MS } : {};
  expectAnswer(row, await sendRaw(target.url, row.bytes, { answers: row.statuses.length, ...quiet, ...row.options }));
  // Writes are applied in their order: what the row has set off is done when this one is.
  await put(target, `${at}/next`, "next");
  expect(await read(target, `${at}/next`)).toBe("next");
  expect(await read(target, `${at}/smuggled`)).toBeNull();
  const kept = await read(target, `${at}/kept`);
  if (row.kept !== null) expect(kept).toBe(row.kept);
  else expect(["old", "new"]).toContain(kept!);
}

function expectAnswer(row: Row, { statuses, isClosed, text }: RawAnswer): void {
  const code = /"code":"(\w+)"/.exec(text)?.[1] ?? null;
  expect({ statuses, isClosed, code }).toEqual({ statuses: [...row.statuses], isClosed: row.isClosed, code: row.code });
}

const GROUPS: Readonly<Record<string, MakeRows>> = {
  "length and encoding": framingRows,
  "encoding names": encodingRows,
  chunks: chunkRows,
  "cut requests": cutRows,
  "hidden requests": hiddenRows,
  pipelines: pipelineRows,
  lines: lineRows,
  versions: versionRows,
  hosts: hostRows,
  targets: targetRows,
  methods: methodRows,
  headers: headerRows,
};

const WEB_SOCKET = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==";

/** A request that would store the key "smuggled", were it ever run. */
function smuggled(auth: string, at: string): string {
  return `PUT ${at}/smuggled HTTP/1.1\r\nHost: h\r\n${auth}Content-Length: 1\r\n\r\nS`;
}

function writer(auth: string, at: string): (headers: string, body: string) => string {
  return (headers, body) => `PUT ${at}/kept HTTP/1.1\r\nHost: h\r\n${auth}${headers}\r\n${body}`;
}

function framingRows(auth: string, at: string): Row[] {
  const write = writer(auth, at);
  const hidden = smuggled(auth, at);
  const lengths = ["3, 3", "+3", "-3", "0x3", "3.0", "1e3", "", "18446744073709551619", "1 1", "3;", "three", "\xb3"];
  return [
    refused("length, then chunked", write("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", `0\r\n\r\n${hidden}`)),
    refused("chunked, then length", write("Transfer-Encoding: chunked\r\nContent-Length: 6\r\n", `0\r\n\r\n${hidden}`)),
    refused(
      "length over all, and chunked",
      write(`Content-Length: ${hidden.length + 5}\r\nTransfer-Encoding: chunked\r\n`, `0\r\n\r\n${hidden}`),
    ),
    refused(
      "zero length, and chunked",
      write("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", `3\r\nnew\r\n0\r\n\r\n`),
    ),
    answered("length twice, the same", write("Content-Length: 3\r\nContent-Length: 3\r\n", "new"), 400, {
      code: "body_incomplete",
      isClosed: true,
    }),
    refused("length twice, different", write("Content-Length: 3\r\nContent-Length: 60\r\n", `new${hidden}`)),
    refused("length twice, zero first", write("Content-Length: 0\r\nContent-Length: 3\r\n", "new")),
    ...lengths.map((length) => refused(`length "${length}"`, write(`Content-Length: ${length}\r\n`, "new"))),
    answered("length with zeros in front", write("Content-Length: 003\r\n", "new"), 200, { kept: "new" }),
    answered("length with a space behind", write("Content-Length: 3 \r\n", "new"), 200, { kept: "new" }),
    answered("length of a terabyte", write("Content-Length: 1099511627776\r\n", "new"), 413, {
      code: "body_too_large",
    }),
    answered("no length and no body", write("", ""), 200, { kept: "" }),
  ];
}

function encodingRows(auth: string, at: string): Row[] {
  const write = writer(auth, at);
  const body = "3\r\nnew\r\n0\r\n\r\n";
  const codings = [
    "identity",
    "gzip",
    "gzip, chunked",
    "chunked, gzip",
    "chunked, chunked",
    "chunked, identity",
    "xchunked",
    "chunkedx",
    "chunked;a=b",
    '"chunked"',
    "\x0bchunked",
    "chunked\0",
    "",
    "chunk",
    "cow",
  ];
  return [
    ...codings.map((coding) => refused(JSON.stringify(coding), write(`Transfer-Encoding: ${coding}\r\n`, body))),
    refused("chunked twice", write("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", body)),
    refused("chunked and identity", write("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", body)),
    refused("a space before the colon", write("Transfer-Encoding : chunked\r\n", body)),
    refused("chunked in HTTP/1.0", write("Transfer-Encoding: chunked\r\n", body).replace("HTTP/1.1", "HTTP/1.0")),
    refused("a folded line", write("Transfer-Encoding:\r\n chunked\r\n", body)),
    answered("upper and lower case", write("Transfer-Encoding: ChUnKeD\r\n", body), 200, { kept: "new" }),
    answered("a tab in front", write("Transfer-Encoding:\tchunked\r\n", body), 200, { kept: "new" }),
  ];
}

function chunkRows(auth: string, at: string): Row[] {
  const write = (body: string) => writer(auth, at)("Transfer-Encoding: chunked\r\n", body);
  const hidden = smuggled(auth, at);
  const sizes = ["zz", "-3", "+3", "0x3", " 3", "3 ", "", "3,", "g", "0.3", "fffffffffffffffff", "3\r", "\u00a03"];
  return [
    ...sizes.map((size) => refused(`size ${JSON.stringify(size)}`, write(`${size}\r\nnew\r\n0\r\n\r\n`))),
    refused("line feeds alone", write("3\nnew\n0\n\n")),
    refused("a line feed behind the size", write("3\nnew\r\n0\r\n\r\n")),
    refused("a line feed in an extension", write(`3;a\nb\r\nnew\r\n0\r\n\r\n${hidden}`)),
    refused("more bytes than the size says", write(`3\r\nnewer\r\n0\r\n\r\n${hidden}`)),
    refused("no line end behind the bytes", write(`3\r\nnewXX0\r\n\r\n${hidden}`)),
    refused("a trailer", write("3\r\nnew\r\n0\r\nX-Trailer: 1\r\n\r\n")),
    refused("a trailer that looks like a request", write(`3\r\nnew\r\n0\r\n${hidden}`)),
    refused("rubbish behind the last chunk", write("3\r\nnew\r\n0\r\nXX")),
    // With 32 bits of size this would be three bytes.
    unanswered("a size of 4 GiB and 3", write(`100000003\r\nnew\r\n0\r\n\r\n`), false, SILENT),
    answered("zeros in front of the size", write("0003\r\nnew\r\n0\r\n\r\n"), 200, { kept: "new" }),
    answered("upper-case digits", write(`A\r\n${"n".repeat(10)}\r\n0\r\n\r\n`), 200, { kept: "n".repeat(10) }),
    answered("an extension", write('3;a=b;c="d"\r\nnew\r\n0\r\n\r\n'), 200, { kept: "new" }),
    answered("no chunk at all", write("0\r\n\r\n"), 200, { kept: "" }),
  ];
}

function cutRows(auth: string, at: string): Row[] {
  const write = writer(auth, at);
  const head = write("Content-Length: 3\r\n", "");
  return [
    unanswered("a body that ends early", write("Content-Length: 10\r\n", "new"), true, HALF_CLOSED),
    unanswered("chunks that end early", write("Transfer-Encoding: chunked\r\n", "3\r\nnew\r\n"), true, HALF_CLOSED),
    unanswered("a chunk that ends early", write("Transfer-Encoding: chunked\r\n", "a\r\nnew"), true, HALF_CLOSED),
    unanswered("a head that ends early", head.slice(0, -10), true, HALF_CLOSED),
    unanswered("a first line that ends early", `GET ${at}/ke`, true, HALF_CLOSED),
    unanswered("a body that does not come", head, false, SILENT),
    unanswered("a head that does not end", head.slice(0, -2), false, SILENT),
    unanswered("nothing", "", true, HALF_CLOSED),
    answered("a head in pieces", [head.slice(0, 5), head.slice(5, 40), head.slice(40), "new"], 200, { kept: "new" }),
    answered("a body in pieces", [head, "n", "e", "w"], 200, { kept: "new" }),
    answered(
      "chunks in pieces",
      [write("Transfer-Encoding: chunked\r\n", "3"), "\r", "\nn", "ew\r\n0", "\r\n\r", "\n"],
      200,
      { kept: "new" },
    ),
  ];
}

/** Requests that lie inside the body of another one are bytes, whatever becomes of that one. */
function hiddenRows(auth: string, at: string): Row[] {
  const hidden = smuggled(auth, at);
  const carry = (first: string) => `${first}Content-Length: ${hidden.length}\r\n\r\n${hidden}`;
  const chunked = `Transfer-Encoding: chunked\r\n\r\n${hidden.length.toString(16)}\r\n${hidden}\r\n0\r\n\r\n`;
  const line = (method: string, path: string) => `${method} ${path} HTTP/1.1\r\nHost: h\r\n`;
  return [
    answered("in a value", carry(`${line("PUT", `${at}/kept`)}${auth}`), 200, { kept: hidden }),
    answered("in the body of a GET", carry(`${line("GET", `${at}/kept`)}${auth}`), 200),
    answered("in the chunks of a GET", `${line("GET", `${at}/kept`)}${auth}${chunked}`, 200),
    answered("in the body of a HEAD", carry(`${line("HEAD", `${at}/kept`)}${auth}`), 200),
    answered("in the body of a DELETE", carry(`${line("DELETE", `${at}/none`)}${auth}`), 200),
    answered("in the body of an OPTIONS", carry(line("OPTIONS", `${at}/kept`)), 204),
    answered("in the body of a probe", carry(line("GET", "/livez")), 200),
    answered("behind a 401", carry(line("PUT", `${at}/kept`)), 401, { code: "unauthorized" }),
    answered("behind a 404", carry(`${line("GET", `${at}/none`)}${auth}`), 404, { code: "key_not_found" }),
    answered("behind a 405", carry(line("PATCH", `${at}/kept`)), 405, { code: "method_not_allowed" }),
    answered("behind a 400", carry(`${line("PUT", `${at}/kept?x=1`)}${auth}`), 400, { code: "query_invalid" }),
    answered("in chunks behind a 400", `${line("PUT", `${at}/%ff`)}${auth}${chunked}`, 400, { code: "path_invalid" }),
    answered("in chunks behind a 401", `${line("PUT", `${at}/kept`)}${chunked}`, 401, { code: "unauthorized" }),
    answered("behind a 412", carry(`${line("PUT", `${at}/kept`)}${auth}If-None-Match: *\r\n`), 412, {
      code: "precondition_failed",
    }),
  ];
}

function pipelineRows(auth: string, at: string): Row[] {
  const get = `GET ${at}/kept HTTP/1.1\r\nHost: h\r\n${auth}\r\n`;
  const probe = "GET /livez HTTP/1.1\r\nHost: h\r\n\r\n";
  const write = writer(auth, at)("Content-Length: 3\r\n", "new");
  return [
    answered("two reads", `${get}${probe}`, 200, { statuses: [200, 200] }),
    answered("five reads", get.repeat(5), 200, { statuses: [200, 200, 200, 200, 200] }),
    answered("a read and rubbish", `${probe}RUBBISH\r\n\r\n`, 200, {
      statuses: [200, 400],
      isClosed: true,
    }),
    answered("a read and half a read", `${probe}${get.slice(0, 20)}`, 200),
    answered(
      "a read that closes, and a write",
      `${probe.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")}${smuggled(auth, at)}`,
      200,
      {
        isClosed: true,
      },
    ),
    // The runtime gives up a connection on which a request comes while the answer to another one is being made. No
    // answer: the client cannot know whether the first write was applied; the second is not.
    { ...unanswered("a write and a write behind it", `${write}${smuggled(auth, at)}`, true), kept: null },
    { ...unanswered("a write and a read behind it", `${write}${get}`, true), kept: null },
    answered("one request after the other", [write, get], 200, {
      statuses: [200, 200],
      kept: "new",
      options: { isInTurn: true },
    }),
  ];
}

function lineRows(auth: string, at: string): Row[] {
  const get = (lines: string) => `GET ${at}/kept HTTP/1.1\r\nHost: h\r\n${auth}${lines}\r\n\r\n`;
  return [
    refused("line feeds alone", `GET ${at}/kept HTTP/1.1\nHost: h\n${auth.replace("\r", "")}\n`, 505),
    refused("one line feed alone", `GET ${at}/kept HTTP/1.1\r\nHost: h\n${auth}\r\n`),
    refused("carriage returns alone", `GET ${at}/kept HTTP/1.1\rHost: h\r\r`, 505),
    refused("a carriage return in a value", get("X-A: a\rb")),
    refused("a hidden header behind a carriage return", get("X-A: a\rContent-Length: 3")),
    refused("a folded line", get("X-A: a\r\n b")),
    refused("a folded line with a tab", get("X-A: a\r\n\tb")),
    refused("a folded first line", `GET ${at}/kept HTTP/1.1\r\n Host: h\r\n${auth}\r\n`),
    refused("a space before the colon", get("X-A : a")),
    refused("a line without a colon", get("X-A")),
    refused("a header without a name", get(": a")),
    refused("a space in a name", get("X A: a")),
    refused("a control character in a name", get("X\x01A: a")),
    refused("a byte over 127 in a name", get("X\xffA: a")),
    refused("a NUL in a value", get("X-A: a\0b")),
    refused("a control character in a value", get("X-A: \x01")),
    answered("a byte over 127 in a value", get("X-A: \xff"), 200),
    refused("empty lines in front", `\r\n\r\n${get("X-A: a")}`),
    refused("a space in front", ` ${get("X-A: a")}`),
    refused("two spaces", get("X-A: a").replace("GET ", "GET  ")),
    refused("tabs for spaces", get("X-A: a").replace(`GET ${at}/kept `, `GET\t${at}/kept\t`), 505),
    refused("a header block of 20 KB", get(`X-A: ${"a".repeat(20_000)}`), 431),
    refused("a thousand headers", get("X-A: a\r\n".repeat(999).concat("X-A: a")), 431),
    refused("a header block that has no end", `GET ${at}/kept HTTP/1.1\r\nHost: h\r\nX-A: ${"a".repeat(40_000)}`, 431),
  ];
}

function versionRows(auth: string, at: string): Row[] {
  const get = (version: string) => `GET ${at}/kept${version}\r\nHost: h\r\n${auth}\r\n`;
  const versions = ["", " HTTP/2.0", " HTTP/1.2", " HTTP/0.9", " http/1.1", " HTTP/1", " HTTP/11", " HTTP/1.1 x"];
  return [
    ...versions.map((version) => refused(JSON.stringify(version), get(version), 505)),
    refused("HTTP/0.9", `GET ${at}/kept\r\n\r\n`, 505),
    answered("HTTP/1.0", get(" HTTP/1.0"), 200, { isClosed: true }),
    answered("HTTP/1.1 that closes", get(" HTTP/1.1\r\nConnection: close"), 200, { isClosed: true }),
    refused("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    refused("a TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    answered(
      "an upgrade to HTTP/2",
      get(" HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk"),
      200,
    ),
    answered(
      "an upgrade to a web socket",
      get(` HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n${WEB_SOCKET}`),
      200,
    ),
  ];
}

function hostRows(auth: string, at: string): Row[] {
  const get = (lines: string, version = "1.1") => `GET ${at}/kept HTTP/${version}\r\n${lines}${auth}\r\n`;
  const impossible = [
    "",
    "a b",
    "a<script>",
    `a${at}/kept?`,
    "a/../b",
    "a?b",
    "a#b",
    "a\\b",
    "user@h",
    "\xff",
    "[::1",
    "h:99999",
    "h:-1",
    "h:x",
    "1.2.3.4.5",
    "256.1.1.1",
  ];
  return [
    refused("none", get("")),
    answered("none in HTTP/1.0", get("", "1.0"), 400, { code: "host_invalid", isClosed: true }),
    ...impossible.map((host) =>
      answered(JSON.stringify(host), get(`Host: ${host}\r\n`), 400, { code: "host_invalid" }),
    ),
    // The runtime lets two Host headers pass and shows the first; nothing here depends on what they say.
    answered("two", get("Host: a\r\nHost: b\r\n"), 200),
    ...["localhost:8080", "[::1]:8080", "H", "127.0.0.1", "a_b", "a,b", "%41"].map((host) =>
      answered(JSON.stringify(host), get(`Host: ${host}\r\n`), 200),
    ),
  ];
}

function targetRows(auth: string, at: string): Row[] {
  const get = (target: string) => `GET ${target} HTTP/1.1\r\nHost: h\r\n${auth}\r\n`;
  const put = (target: string) => `PUT ${target} HTTP/1.1\r\nHost: h\r\n${auth}Content-Length: 3\r\n\r\nnew`;
  const absolute = [
    `http://other${at}/kept`,
    `https://other:1${at}/kept`,
    `http://u:p@other${at}/kept`,
    `HTTP://other${at}/kept`,
  ];
  return [
    ...absolute.map((target) => answered(target, get(target), 200)),
    answered("absolute, climbing", get(`http://other/a/..${at}/%2e/kept`), 200),
    answered("absolute, a write", put(`http://other${at}/kept`), 200, { kept: "new" }),
    answered("absolute, no path", get("http://other"), 200),
    ...[`ftp://other${at}/kept`, "javascript:alert(1)", at.slice(1), "*", "?x", "other:80"].map((target) =>
      refused(`GET ${target}`, get(target)),
    ),
    refused("OPTIONS *", get("*").replace("GET", "OPTIONS")),
    answered("CONNECT", get("other:80").replace("GET", "CONNECT"), 400, { code: "host_invalid" }),
    answered("a raw #", put(`${at}/kept#x`), 400, { code: "path_invalid" }),
    answered("a raw # in the query", put(`${at}/kept?ttl=5#x`), 400, { code: "path_invalid" }),
    answered("an absolute target with a raw #", put(`http://other${at}/kept#x`), 400, { code: "path_invalid" }),
    answered("raw UTF-8", get(`${at}/${Buffer.from("ü").toString("latin1")}`), 404, { code: "key_not_found" }),
    answered("a raw byte 255", put(`${at}/kept\xff`), 400, { code: "key_invalid" }),
    refused("a raw NUL", put(`${at}/kept\0`), 505),
    refused("a raw tab", put(`${at}/kept\tx`), 505),
    refused("a raw space", put(`${at}/kept x`), 505),
    answered("line ends in a name, encoded", get(`${at}/%0d%0aX-Injected:%201`), 404, { code: "key_not_found" }),
    refused("20 KB", get(`${at}/${"k".repeat(20_000)}`), 431),
    answered("10 KB", get(`${at}/${"k".repeat(10_000)}`), 400, { code: "key_invalid" }),
  ];
}

function methodRows(auth: string, at: string): Row[] {
  const ask = (method: string) => `${method} ${at}/kept HTTP/1.1\r\nHost: h\r\n${auth}\r\n`;
  return [
    // A method that the parser does not know ends the connection without an answer.
    ...["FOO", "get", "GETT", "PU", "Delete"].map((method) => unanswered(method, ask(method), true)),
    refused("G@T", ask("G@T")),
    refused("no method", ask("").slice(1)),
    ...["TRACE", "CONNECT", "PROPFIND", "PATCH"].map((method) =>
      answered(method, ask(method), 405, { code: "method_not_allowed" }),
    ),
    unanswered("a method of 5000 letters", ask("A".repeat(5000)), true),
  ];
}

function headerRows(auth: string, at: string): Row[] {
  const write = (lines: string) => writer(auth, at)(`${lines}Content-Length: 3\r\n`, "new");
  return [
    answered("two tokens", write(auth), 401, { code: "unauthorized" }),
    answered("two content types", write("Content-Type: a/b\r\nContent-Type: a/b\r\n"), 400, {
      code: "content_type_invalid",
    }),
    answered("two TTLs", write("X-TTL: 60\r\nX-TTL: 60\r\n"), 400, { code: "ttl_invalid" }),
    answered("an empty TTL", write("X-TTL:\r\n"), 400, { code: "ttl_invalid" }),
    answered("an empty condition", write("If-Match:\r\n"), 400, { code: "precondition_invalid" }),
    answered("two lines of one condition are a list", write('If-None-Match: "0"\r\nIf-None-Match: *\r\n'), 400, {
      code: "precondition_invalid",
    }),
    answered(
      "an expectation, and no body yet",
      writer(auth, at)("Expect: 100-continue\r\nContent-Length: 3\r\n", ""),
      100,
    ),
    answered(
      "an expectation, then the body",
      [writer(auth, at)("Expect: 100-continue\r\nContent-Length: 3\r\n", ""), "new"],
      100,
      { statuses: [100, 200], kept: "new" },
    ),
    answered("an unknown expectation", write("Expect: more\r\n"), 200, { kept: "new" }),
  ];
}
