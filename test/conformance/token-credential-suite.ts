// Where an app token may stand, which one counts when there are several, and that none is ever stored.

import { describe, expect, test } from "bun:test";
import type { ErrorCode } from "../../src/shared/errors.ts";
import { expectTime } from "../support/figures-in-bounds.ts";
import { expectError } from "../support/kv-requests.ts";
import { sendRaw } from "../support/raw-request.ts";
import { growthOf } from "../support/reason-figure.ts";
import { metricOf } from "../support/relay-books.ts";
import { mint, type OpenTarget, type Target } from "../support/targets.ts";
import {
  expectRefusal,
  importBatch,
  keysOf,
  store,
  storedText,
  unannounced,
  WITHOUT_RATES,
} from "../support/token-answers.ts";
import { install, JSON_TYPE } from "../support/token-client.ts";
import { useTarget } from "../support/use-target.ts";

const MiB = 1024 * 1024;
/** Of the right form, and of no installation. */
const UNKNOWN = `kvt_${"x".repeat(43)}`;

export function tokenCredentialSuite(name: string, open: OpenTarget): void {
  const start = (env = {}) => useTarget(open, { ...WITHOUT_RATES, ...env });
  describe(`app tokens on ${name}: where they stand`, () => sourceTests(start()));
  describe(`app tokens on ${name}: more than one`, () => orderTests(start()));
  describe(`app tokens on ${name}: given twice`, () => doubleTests(start()));
  describe(`app tokens on ${name}: none`, () => missingTests(start()));
  describe(`app tokens on ${name}: of another form`, () => formTests(start()));
  describe(`app tokens on ${name}: in the body`, () => bodyTests(start()));
  describe(`app tokens on ${name}: in a large body`, () => largeBodyTests(start({ TOKEN_BODY_AUTH_BYTES: "1KiB" })));
  describe(`app tokens on ${name}: in a body as large as all memory for bodies`, () => hugeBodyTests(start(HUGE)));
  describe(`app tokens on ${name}: other credentials`, () => otherTests(start()));
  describe(`app tokens on ${name}: sources switched off`, () => {
    switchTests({
      header: start({ TOKEN_SOURCES: "header" }),
      query: start({ TOKEN_SOURCES: "query" }),
      body: start({ TOKEN_SOURCES: "body" }),
    });
  });
}

/** A body may be searched that is larger than what users together may hold. */
const HUGE = {
  SERVICES: "kv,token",
  BODY_BUDGET_BYTES: "2MiB",
  MAX_VALUE_BYTES: "1MiB",
  TOKEN_BODY_AUTH_BYTES: "2MiB",
  TOKEN_MAX_BATCH_BYTES: "1MiB",
};

type Headers = Readonly<Record<string, string>>;
interface Sent {
  readonly method?: string;
  readonly headers?: Headers;
  readonly query?: string;
  readonly body?: string;
}

/** Asks with no credential but those in `sent`. */
function ask(
  target: Target,
  path: string,
  { method = "GET", headers = {}, query = "", body }: Sent,
): Promise<Response> {
  const sent = body === undefined ? {} : { body };
  return target.fetch(`/kv/token${path}${query}`, {
    method,
    headers: { Authorization: null, ...(body === undefined ? {} : JSON_TYPE), ...headers },
    ...sent,
  });
}

const bearer = (token: string): Headers => ({ Authorization: `Bearer ${token}` });

function sourceTests(target: () => Target): void {
  test("one that is missing or wrong is counted once, by that reason", async () => {
    const { token } = await install(target());
    const askAll = async () => {
      await ask(target(), "/k", {});
      await ask(target(), "/k", { headers: bearer(UNKNOWN) });
      await ask(target(), "/k", { headers: bearer("of another form") });
      await ask(target(), "/k", { headers: bearer(token) });
    };
    const reasons = ["token_missing", "token_invalid"];
    const grown = await growthOf(target(), "gokv_auth_failures_total", reasons, askAll);
    expect(grown).toEqual({ token_missing: 1, token_invalid: 2 });
  });

  test("every method takes it as a Bearer header, in X-App-Token and in the query", async () => {
    const { token } = await install(target());
    const places: readonly Sent[] = [
      { headers: bearer(token) },
      { headers: { Authorization: `bearer ${token}` } },
      { headers: { Authorization: `BEARER   ${token}` } },
      { headers: { "X-App-Token": token } },
      { query: `?token=${token}` },
      { query: `?limit=5&token=${token}&skip=0` },
      { query: `?token=${[...token].map((letter) => `%${letter.charCodeAt(0).toString(16)}`).join("")}` },
    ];
    for (const place of places) {
      expect((await ask(target(), "/k", { ...place, method: "POST", body: "1" })).status).toBe(200);
      for (const path of ["/", "/_keys", "/_info", "/_token", "/k", "/k/metadata"]) {
        expect([place, path, (await ask(target(), path, place)).status]).toEqual([place, path, 200]);
        expect((await ask(target(), path, { ...place, method: "HEAD" })).status).toBe(200);
      }
      expect((await ask(target(), "/_batchimport", { ...place, method: "POST", body: '{"a":1}' })).status).toBe(200);
      expect((await ask(target(), "/k", { ...place, method: "DELETE" })).status).toBe(204);
      expect((await ask(target(), "/", { ...place, method: "DELETE" })).status).toBe(204);
    }
  });

  test("POST and DELETE take it as a member of the body", async () => {
    const { token } = await install(target());
    const body = `{"token":"${token}","data":1}`;
    expect(await (await ask(target(), "/k", { method: "POST", body })).json()).toMatchObject({ created: true });
    expect(await (await ask(target(), "/_batchimport", { method: "POST", body })).json()).toMatchObject({ total: 1 });
    expect((await ask(target(), "/k", { method: "DELETE", body })).status).toBe(204);
    expect(await keysOf(target(), token)).toEqual(["data"]);
    const plain = { method: "DELETE", body, headers: { "Content-Type": "text/plain" } };
    expect((await ask(target(), "/", plain)).status).toBe(204);
    expect(await keysOf(target(), token)).toEqual([]);
  });

  test("it counts in a body that is nested too deeply to be JSON, which then is refused as that", async () => {
    const { token } = await install(target());
    const deep = (credential: string) => `{"token":"${credential}","data":${"[".repeat(512)}${"]".repeat(512)}}`;
    for (const path of ["/k", "/_batchimport"]) {
      await expectRefusal(await ask(target(), path, { method: "POST", body: deep(token) }), "json_too_deep");
      await expectRefusal(await ask(target(), path, { method: "POST", body: deep(UNKNOWN) }), "token_invalid");
    }
    await store(target(), token, "k", "1");
    for (const path of ["/k", "/"]) {
      await expectRefusal(await ask(target(), path, { method: "DELETE", body: deep(token) }), "json_too_deep");
    }
    expect(await keysOf(target(), token)).toEqual(["k"]);
    const readOnly = await install(target(), { isReadOnly: true });
    await expectRefusal(await ask(target(), "/k", { method: "POST", body: deep(readOnly.token) }), "read_only_token");
  });

  test("a member of that name that is nested too deeply is none, and costs no time", async () => {
    const body = `{"token":${"[".repeat(400_000)}${"]".repeat(400_000)}}`;
    const times: number[] = [];
    for (let tries = 0; tries < 3; tries++) {
      const startMs = performance.now();
      await expectRefusal(await ask(target(), "/k", { method: "POST", body }), "token_missing");
      times.push(performance.now() - startMs);
    }
    expectTime("looking for a token in what is nested too deeply", Math.min(...times), 50);
  });

  test("it is taken from a body that is sent in chunks", async () => {
    const { token } = await install(target());
    const body = `{"token":"${token}","data":1}`;
    const chunks = [body.slice(0, 9), body.slice(9)].map((part) => `${part.length.toString(16)}\r\n${part}\r\n`);
    const head = "POST /kv/token/k HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n";
    const answer = await sendRaw(target().url, [`${head}Transfer-Encoding: chunked\r\n\r\n`, ...chunks, "0\r\n\r\n"]);
    expect(answer.statuses).toEqual([200]);
    expect(await storedText(target(), token, "k")).toBe('{"data":1}');
  });
}

function orderTests(target: () => Target): void {
  test("a wrong credential never leads to the next source", async () => {
    const { token } = await install(target());
    for (const wrong of [UNKNOWN, "short", "with spaces in it, and a comma", "é".repeat(20)]) {
      const encoded = encodeURIComponent(wrong);
      const plain = Buffer.from(wrong).toString("latin1");
      const good = `{"token":"${token}"}`;
      const places: readonly Sent[] = [
        { headers: { ...bearer(plain), "X-App-Token": token } },
        { headers: { "X-App-Token": plain }, query: `?token=${token}` },
        { query: `?token=${encoded}`, body: good, method: "POST" },
        { headers: bearer(plain), query: `?token=${token}` },
        { headers: bearer(plain), body: good, method: "POST" },
      ];
      for (const place of places) {
        await expectRefusal(await ask(target(), "/k", place), "token_invalid");
      }
    }
    expect(await keysOf(target(), token)).toEqual([]);
  });

  test("the first good one counts, whatever stands in the others", async () => {
    const [mine, theirs] = [await install(target()), await install(target())];
    const uuidOf = async (sent: Sent) =>
      ((await (await ask(target(), "/_info", sent)).json()) as { device: { uuid: string } }).device.uuid;
    const [good, other] = [mine.token, theirs.token];
    const places: readonly Sent[] = [
      { headers: { ...bearer(good), "X-App-Token": other }, query: `?token=${other}` },
      { headers: { "X-App-Token": good }, query: `?token=${other}` },
      { headers: { ...bearer(good), "X-App-Token": UNKNOWN }, query: `?token=${UNKNOWN}` },
    ];
    for (const place of places) expect(await uuidOf(place)).toBe(mine.uuid);
    // The body of another token is then nothing but data.
    const sent = { method: "POST", query: `?token=${good}`, body: `{"token":"${other}"}` };
    expect((await ask(target(), "/k", sent)).status).toBe(200);
    expect(await storedText(target(), good, "k")).toBe(`{"token":"${other}"}`);
    expect(await keysOf(target(), other)).toEqual([]);
  });

  test("an Authorization that is not Bearer is passed over", async () => {
    const { token } = await install(target());
    for (const scheme of ["Basic dXNlcjpwYXNz", "Digest username=x", token, "Bearerx", `Token ${token}`]) {
      const headers = { Authorization: scheme };
      expect([scheme, (await ask(target(), "/_info", { headers, query: `?token=${token}` })).status]).toEqual([
        scheme,
        200,
      ]);
      await expectRefusal(await ask(target(), "/_info", { headers }), "token_missing");
    }
  });

  test("empty sources are passed over", async () => {
    const { token } = await install(target());
    const body = `{"token":"${token}"}`;
    for (const Authorization of ["", "Bearer", "Bearer ", "Bearer    "]) {
      const headers = { Authorization, "X-App-Token": "" };
      expect((await ask(target(), "/_info", { headers, query: `?token=${token}` })).status).toBe(200);
      expect((await ask(target(), "/_info", { headers: { ...headers, "X-App-Token": token } })).status).toBe(200);
      for (const query of ["?token=", "?token", "?token=&limit=1", "?tokens=x", "?Token=x"]) {
        expect((await ask(target(), "/k", { method: "POST", headers, query, body })).status).toBe(200);
        await expectRefusal(await ask(target(), "/k", { headers, query }), "token_missing");
      }
    }
    await expectRefusal(await ask(target(), "/k", { method: "POST", body: '{"token":""}' }), "token_missing");
  });
}

function doubleTests(target: () => Target): void {
  test("two headers of one name are refused, also when they are equal or one is empty", async () => {
    const { token } = await install(target());
    const pairs = [
      [`Authorization: Bearer ${token}`, `Authorization: Bearer ${token}`],
      [`Authorization: Bearer ${token}`, `authorization: Bearer ${UNKNOWN}`],
      [`Authorization: Bearer ${token}`, "Authorization: Basic x"],
      ["Authorization: Basic x", `Authorization: Bearer ${token}`],
      [`X-App-Token: ${token}`, `X-App-Token: ${token}`],
      [`X-App-Token: ${token}`, "x-app-token: other"],
    ];
    for (const pair of pairs) {
      const head = `POST /kv/token/k HTTP/1.1\r\nHost: h\r\n${pair.join("\r\n")}\r\nContent-Length: 1\r\n\r\n1`;
      const { text, statuses } = await sendRaw(target().url, head);
      expect([pair, statuses]).toEqual([pair, [401]]);
      expect(text).toContain('"code":"token_invalid"');
    }
    expect(await keysOf(target(), token)).toEqual([]);
  });

  test("two in the query are refused, also when they are equal or one is empty", async () => {
    const { token } = await install(target());
    for (const query of [`token=${token}&token=${token}`, `token=&token=${token}`, `token=${token}&x=1&token`]) {
      const sent = { method: "POST", query: `?${query}`, body: "1" };
      await expectRefusal(await ask(target(), "/k", sent), "token_invalid");
    }
    expect(await keysOf(target(), token)).toEqual([]);
  });

  test("two members of the body are refused, however the name is spelt", async () => {
    const { token } = await install(target());
    const member = `"token":"${token}"`;
    const bodies = [
      `{${member},${member}}`,
      `{${member},"\\u0074oken":"${token}"}`,
      `{"\\u0074oken":"${token}",${member}}`,
      `{"token":"other",${member}}`,
      `{"token":null,"a":{},${member}}`,
    ];
    for (const body of bodies) {
      await expectRefusal(await ask(target(), "/k", { method: "POST", body }), "token_invalid");
      await expectRefusal(await ask(target(), "/_batchimport", { method: "POST", body }), "token_invalid");
      await expectRefusal(await ask(target(), "/", { method: "DELETE", body }), "token_invalid");
    }
    expect(await keysOf(target(), token)).toEqual([]);
  });

  test("a member whose name is escaped is the token all the same", async () => {
    const { token } = await install(target());
    const body = `{"\\u0074ok\\u0065n":"${token}","a":1}`;
    expect((await ask(target(), "/k", { method: "POST", body })).status).toBe(200);
    expect(await storedText(target(), token, "k")).toBe('{"a":1}');
  });
}

/** Every route and every name that could be one, with the methods that they take. */
const EVERYWHERE: readonly (readonly [path: string, methods: readonly string[]])[] = [
  ["", ["GET", "HEAD", "POST", "DELETE"]],
  ["/", ["GET", "HEAD", "POST", "DELETE"]],
  ["/k/metadata", ["GET", "HEAD"]],
  ...["/k", "/a/b", "/_keys", "/_batchimport", "/_info", "/_token", "/_check", "/_hint", "/metadata", "/__proto__"].map(
    (path) => [path, ["GET", "HEAD", "POST", "DELETE"]] as const,
  ),
];

function missingTests(target: () => Target): void {
  test("without a token every route and every reserved name is 401", async () => {
    for (const [path, methods] of EVERYWHERE) {
      for (const method of methods) {
        const bodies = method === "POST" ? [undefined, "1", "{}", "{bad", ""] : [undefined];
        for (const body of bodies) {
          const response = await ask(target(), path, body === undefined ? { method } : { method, body });
          expect([method, path, response.status]).toEqual([method, path, 401]);
          if (method !== "HEAD") await expectRefusal(response, "token_missing");
        }
      }
    }
  });

  test("a body of two megabytes is not searched for one unless a setting says so", async () => {
    const { token } = await install(target());
    const body = `{"token":"${token}","a":"${"x".repeat(2 * MiB)}"}`;
    await expectRefusal(await ask(target(), "/_batchimport", { method: "POST", body }), "token_missing");
    expect((await importBatch(target(), token, body)).errors).toMatchObject([{ key: "a", code: "body_too_large" }]);
  });

  test("a GET or HEAD has no token in its body", async () => {
    const { token } = await install(target());
    await store(target(), token, "k", "1");
    const body = `{"token":"${token}"}`;
    for (const method of ["GET", "HEAD"]) {
      for (const path of ["/k", "/_keys", "/"]) {
        const head = `${method} /kv/token${path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n`;
        const { statuses } = await sendRaw(target().url, `${head}Content-Length: ${body.length}\r\n\r\n${body}`);
        expect([method, path, statuses[0]]).toEqual([method, path, 401]);
      }
    }
  });

  test("a token in an array, a scalar, a nested member or of another type is none", async () => {
    const { token } = await install(target());
    for (const body of [
      `["${token}"]`,
      `"${token}"`,
      `[{"token":"${token}"}]`,
      `{"a":{"token":"${token}"}}`,
      `{"Token":"${token}"}`,
      `{"token":["${token}"]}`,
      `{"token":{"token":"${token}"}}`,
      '{"token":1}',
      '{"token":null}',
      `{"token":"${token}"`,
      `\ufeff{"token":"${token}"}`,
    ]) {
      await expectRefusal(await ask(target(), "/k", { method: "POST", body }), "token_missing");
    }
    expect(await keysOf(target(), token)).toEqual([]);
  });
}

function formTests(target: () => Target): void {
  test("whatever is not of a token's form, and any unknown token, gets one and the same answer", async () => {
    const answers = new Set<string>();
    const texts = [
      UNKNOWN,
      "x",
      "x".repeat(15),
      "x".repeat(16),
      "x".repeat(512),
      "x".repeat(513),
      "x".repeat(4000),
      "a b c d e f g h i j",
      "'; DROP TABLE kv; --",
      "{}{}{}{}{}{}{}{}",
      "null",
      "__proto__",
      "a,b,c,d,e,f,g,h,i",
    ];
    for (const text of texts) {
      for (const sent of [
        { headers: bearer(text) },
        { headers: { "X-App-Token": text } },
        { query: `?token=${encodeURIComponent(text)}` },
        { method: "POST", body: JSON.stringify({ token: text }) },
      ]) {
        const response = await ask(target(), "/k", sent);
        answers.add(await response.clone().text());
        await expectRefusal(response, "token_invalid");
      }
    }
    await expectRefusal(await ask(target(), "/k", { query: "?token=%ff%zz" }), "token_invalid");
    expect([...answers]).toEqual(['{"statusCode":401,"message":"missing or invalid token","code":"token_invalid"}']);
  });
}

/** What is sent with the token in a header, and what of it is stored. */
const CUTS: readonly (readonly [sent: string, stored: string])[] = [
  ['{"token":T,"data":1}', '{"data":1}'],
  ['{"token":T}', "{}"],
  ['{"data":1,"token":T}', '{"data":1}'],
  ['{"a":1,"token":T,"b":2}', '{"a":1,"b":2}'],
  ['{ "token" : T }', "{  }"],
  ['{ "a" : 1.0 , "token" : T , "b" : [ ] }', '{ "a" : 1.0 ,  "b" : [ ] }'],
  [' {"a":1 , "token":T} ', ' {"a":1 } '],
  ['{"token":T,"a":{"token":T},"b":[T]}', '{"a":{"token":T},"b":[T]}'],
  ['{"\\u0074oken":T,"a":"\\u0041"}', '{"a":"\\u0041"}'],
  ['{"a":",","token":T}', '{"a":","}'],
  ['{"a":"}\\"{","token":T,"c":"\\\\"}', '{"a":"}\\"{","c":"\\\\"}'],
];
/** What must not be touched: it is data. */
const DATA: readonly string[] = [
  '{"token":"another-token-of-mine"}',
  '{"token":""}',
  '{"token":1.0,"a":2}',
  '{"token":null}',
  '{"token":[T]}',
  '{"token":{"token":T}}',
  '{"a":{"token":T}}',
  '{"Token":T}',
  '[{"token":T}]',
  "T",
  '{"tokens":T,"token ":T}',
];

/** The text with the token in place of every T that is not part of a name. */
function carrying(token: string, text: string): string {
  return text.replaceAll(/(?<!")T/g, JSON.stringify(token));
}

function bodyTests(target: () => Target): void {
  test("the member that carries the token is cut out with one comma, every other byte stays", async () => {
    const { token } = await install(target());
    const withToken = (text: string) => carrying(token, text);
    for (const [sent, stored] of CUTS) {
      const body = withToken(sent);
      const places: readonly Sent[] = [{}, { headers: bearer(token) }, { query: `?token=${token}` }];
      for (const place of places) {
        expect([sent, (await ask(target(), "/k", { method: "POST", body, ...place })).status]).toEqual([sent, 200]);
        expect([sent, await storedText(target(), token, "k")]).toEqual([sent, withToken(stored)]);
      }
    }
  });

  test("any other member of that name is data", async () => {
    const { token } = await install(target());
    for (const sent of DATA) {
      const body = carrying(token, sent);
      await store(target(), token, "k", body);
      expect([sent, await storedText(target(), token, "k")]).toEqual([sent, body]);
    }
  });

  test("a token that is sent by header is stored neither once nor twice", async () => {
    const { token } = await install(target());
    const body = `{"token":"${token}","a":1, "token":"${token}"}`;
    await store(target(), token, "k", body);
    expect(await storedText(target(), token, "k")).toBe('{"a":1}');
    await store(target(), token, "k", `{"token":"${token}","token":"other","\\u0074oken":"${token}"}`);
    expect(await storedText(target(), token, "k")).toBe('{"token":"other"}');
    expect(await importBatch(target(), token, body)).toMatchObject({
      total: 1,
      results: [{ key: "a", created: true }],
    });
    expect(await keysOf(target(), token)).toEqual(["a", "k"]);
  });

  test("a token that is given over and over is refused, not cut out over and over", async () => {
    const { token } = await install(target());
    const members = `"token":"${token}",`.repeat(10_000);
    const startMs = performance.now();
    const answer = await ask(target(), "/k", {
      method: "POST",
      body: `{${members}"k":1}`,
      headers: bearer(token),
    });
    expect([answer.status, ((await answer.json()) as { code: string }).code]).toEqual([400, "invalid_json"]);
    expect(performance.now() - startMs).toBeLessThan(5_000);
  });

  test("a batch with the token in it creates no key of that name, one with another value does", async () => {
    const { token } = await install(target());
    const body = `{"token":"${token}","a":1}`;
    for (const headers of [{}, bearer(token)]) {
      const answer = (await (await ask(target(), "/_batchimport", { method: "POST", body, headers })).json()) as object;
      expect(answer).toMatchObject({ total: 1, successful: 1 });
      expect(await keysOf(target(), token)).toEqual(["a"]);
    }
    await importBatch(target(), token, '{"token":"another","b":{"token":1}}');
    expect(await keysOf(target(), token)).toEqual(["a", "b", "token"]);
    expect(await storedText(target(), token, "token")).toBe('"another"');
  });
}

function largeBodyTests(target: () => Target): void {
  test("a body above the setting is not searched for a token, and not read for one", async () => {
    const { token } = await install(target());
    const padded = (bytes: number) => {
      const start = `{"token":"${token}","a":"`;
      return `${start}${"x".repeat(bytes - start.length - 2)}"}`;
    };
    expect((await ask(target(), "/k", { method: "POST", body: padded(1024) })).status).toBe(200);
    for (const bytes of [1025, 2 * MiB]) {
      await expectRefusal(await ask(target(), "/none", { method: "POST", body: padded(bytes) }), "token_missing");
      const response = await target().fetch("/kv/token/none", {
        method: "POST",
        headers: { Authorization: null, ...JSON_TYPE },
        body: unannounced(padded(bytes)),
      });
      await expectRefusal(response, "token_missing");
    }
    expect(await keysOf(target(), token)).toEqual(["k"]);
    const value = `"${"x".repeat(4000)}"`;
    await store(target(), token, "large", value);
    expect(await storedText(target(), token, "large")).toBe(value);
  });
}

function hugeBodyTests(target: () => Target): void {
  test("takes memory until it is answered, and no longer", async () => {
    const { token } = await install(target());
    const huge = JSON.stringify({ token, a: "x".repeat(1_950_000) });
    for (let count = 0; count < 5; count++) {
      const refused = await ask(target(), "/_batchimport", { method: "POST", body: huge });
      await expectRefusal(refused, "body_too_large");
      expect(await metricOf(target(), "gokv_body_budget_used_bytes")).toBe(0);
    }
  });
}

function otherTests(target: () => Target): void {
  test("neither an operator's JWT nor any other credential is an app token", async () => {
    const { uuid, token, id } = await install(target(), {}, `device-${"u".repeat(20)}`);
    await store(target(), token, "k", "1");
    const others = [
      await mint(),
      await mint({ scope: "admin" }),
      await mint({ buckets: [uuid], scope: "kv" }),
      uuid,
      id,
      `sk-${"a".repeat(48)}`,
      `relay_${"a".repeat(43)}`,
      Bun.SHA256.hash(token, "hex"),
      token.slice(0, -1),
      `${token}=`,
      token.toUpperCase(),
    ];
    for (const other of others) {
      for (const [path, methods] of EVERYWHERE) {
        for (const method of methods) {
          const response = await ask(target(), path, { method, headers: bearer(other) });
          expect([other, method, path, response.status]).toEqual([other, method, path, 401]);
          if (method !== "HEAD") await expectRefusal(response, "token_invalid");
        }
      }
      await expectRefusal(await ask(target(), "/k", { query: `?token=${encodeURIComponent(other)}` }), "token_invalid");
      await expectRefusal(await ask(target(), "/k", { headers: { "X-App-Token": other } }), "token_invalid");
    }
    expect(await keysOf(target(), token)).toEqual(["k"]);
  });

  test("an app token opens nothing of the operator's", async () => {
    const { uuid, token } = await install(target());
    await store(target(), token, "k", "1");
    const paths = [
      `/${uuid}/k`,
      "/_list",
      `/_list?bucket=${uuid}`,
      `/_meta/${uuid}/k`,
      "/metrics",
      "/api/kv/devices",
      `/api/kv/devices/${uuid}`,
      "/api/kv/apps",
      "/api/kv/installations",
      "/api/channel",
      "/api/token",
    ];
    for (const path of paths) {
      for (const headers of [bearer(token), { "X-App-Token": token, Authorization: null }]) {
        await expectError(await target().fetch(path, { headers }), "unauthorized");
      }
    }
    for (const path of ["/v1/models", "/v1/chat/completions", "/api/v1/tasks", "/api/v1/auth/me"]) {
      const method = path.endsWith("completions") ? "POST" : "GET";
      expect([path, (await target().fetch(path, { method, headers: bearer(token) })).status]).toEqual([path, 401]);
    }
    for (const [method, path] of [
      ["PUT", `/${uuid}/k`],
      ["DELETE", `/${uuid}/k`],
      ["POST", "/api/kv/installations"],
      ["DELETE", `/api/kv/devices/${uuid}?purge=true`],
      ["POST", "/_admin/backup"],
    ] as const) {
      const response = await target().fetch(path, { method, headers: bearer(token) });
      await expectError(response, "unauthorized");
    }
    expect(await storedText(target(), token, "k")).toBe("1");
  });
}

function switchTests(targets: Readonly<Record<"header" | "query" | "body", () => Target>>): void {
  test("a source that is switched off is not looked at, alone or beside a good one", async () => {
    for (const [on, target] of Object.entries(targets)) {
      const { token } = await install(target());
      const places = (text: string): Record<string, Sent[]> => ({
        header: [{ headers: bearer(text) }, { headers: { "X-App-Token": text } }],
        query: [{ query: `?token=${text}` }],
        body: [{ body: `{"token":"${text}"}` }],
      });
      for (const [source, sents] of Object.entries(places(token))) {
        for (const sent of sents) {
          const response = await ask(target(), "/k", { method: "POST", body: "{}", ...sent });
          if (source === on) expect([on, source, response.status]).toEqual([on, source, 200]);
          else await expectRefusal(response, "token_missing" satisfies ErrorCode);
        }
      }
      for (const [source, sents] of Object.entries(places(UNKNOWN))) {
        if (source === on) continue;
        const [good] = places(token)[on]!;
        const sent = { method: "POST", body: "{}", ...sents[0], ...good };
        expect([on, source, (await ask(target(), "/k", sent)).status]).toEqual([on, source, 200]);
      }
    }
  });
}
