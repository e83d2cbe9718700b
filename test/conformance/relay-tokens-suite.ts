// Relay tokens and the usage log as an operator manages them: keys shown once, quota that no change brings back, sums.

import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { KiB } from "../../src/shared/bounds.ts";
import { eventually } from "../support/eventually.ts";
import { FaultUpstream } from "../support/fault-upstream.ts";
import { openRaw } from "../support/raw-request.ts";
import { metricOf } from "../support/relay-books.ts";
import {
  ask,
  chat,
  chatCode,
  clearRelay,
  type Json,
  makeChannel,
  makeToken,
  manage,
  managed,
  RELAY_ENV,
  refusalOf,
  type TokenJson,
} from "../support/relay-client.ts";
import type { OpenTarget } from "../support/targets.ts";
import { afterwards, answerNormally, answerWith, chatChunk, refuse, stream } from "../support/upstream-plans.ts";
import { useTarget } from "../support/use-target.ts";

interface LogRow extends Json {
  readonly id: number;
  readonly request_id: string;
  readonly ts: number;
  readonly token_id: number;
  readonly channel_id: number | null;
  readonly model: string;
  readonly status: number;
  readonly quota: number;
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly duration_ms: number;
  readonly ttft_ms: number | null;
  readonly stream: number;
  readonly error_code: string | null;
}

interface LogPage {
  readonly data: readonly LogRow[];
  readonly next: string | null;
}

const WAIT_MS = 5000;
const nowSeconds = () => Math.floor(Date.now() / 1000);

export function relayTokensSuite(name: string, open: OpenTarget): void {
  describe(`relay tokens of ${name}`, () => {
    const target = useTarget(open, RELAY_ENV);
    let upstream: FaultUpstream;
    beforeAll(async () => {
      upstream = await FaultUpstream.start();
    });
    afterAll(() => upstream[Symbol.asyncDispose]());
    beforeEach(async () => {
      await clearRelay(target());
      upstream.reset();
    });

    const post = (body: unknown) => manage(target(), "POST", "/api/token", body);
    const show = (id: number) => managed<TokenJson>(target(), "GET", `/api/token/${id}`);
    const change = (id: number, body: Json, method = "PATCH") => manage(target(), method, `/api/token/${id}`, body);
    const make = (fields: Json = {}) => makeToken(target(), fields);

    test("one is made with a key of 256 random bits that is shown this once", async () => {
      const answer = await post({ name: "主力令牌" });
      const token = (await answer.json()) as TokenJson;
      expect([answer.status, answer.headers.get("location")]).toEqual([201, `/api/token/${token.id}`]);
      expect(token).toEqual({
        id: expect.any(Number),
        user_id: 0,
        key: expect.stringMatching(/^sk-nexus-[A-Za-z0-9_-]{43}$/),
        status: 1,
        name: "主力令牌",
        created_time: expect.any(Number),
        accessed_time: 0,
        expired_time: -1,
        unlimited_quota: true,
        remain_quota: 0,
        used_quota: 0,
        models: [],
        allow_ips: [],
        group: "default",
        rpm: 0,
        tpm: 0,
        max_parallel: 0,
        cache_ttl: 0,
      });
      expect(Number.isInteger(token.created_time)).toBe(true);
      expect(Math.abs((token.created_time as number) - nowSeconds())).toBeLessThan(30);
      const { key, ...rest } = token;
      const masked = { ...rest, key: `sk-nexu...${key.slice(-4)}` };
      expect(await show(token.id)).toEqual(masked);
      expect(await managed<Json[]>(target(), "GET", "/api/token")).toEqual([masked]);
      expect((await post({ name: "other" }).then((other) => other.json() as Promise<TokenJson>)).key).not.toBe(key);
    });

    test("one may have a key that the caller gives, once, with a warning when it can be guessed", async () => {
      const token = await make({ key: "sk-nexus-abc" });
      expect([token.key, token.warning]).toEqual(["sk-nexus-abc", "a short token can be guessed"]);
      const again = await refusalOf(await post({ name: "again", key: "sk-nexus-abc" }));
      expect([again.status, again.code]).toEqual([409, "token_exists"]);
      expect((await make({ key: "k".repeat(32) })).warning).toBeUndefined();
      for (const key of ["sk-shrt", "x".repeat(257), "with space", "ключ-ключ", 12345678, ""]) {
        const refused = await refusalOf(await post({ name: "n", key }));
        expect([key, refused.status, refused.code]).toEqual([key, 400, "invalid_field"]);
      }
      expect(await managed<Json[]>(target(), "GET", "/api/token")).toHaveLength(2);
    });

    test("a field that is not what it should be is refused, and a name is needed", async () => {
      expect(await refusalOf(await post({}))).toMatchObject({ status: 400, code: "missing_field" });
      const wrong: Json[] = [
        { status: 3 },
        { status: true },
        { expired_time: -2 },
        { expired_time: 1.5 },
        { remain_quota: -1 },
        { remain_quota: 1e16 },
        { remain_quota: "5" },
        { rpm: -1 },
        { tpm: 0.5 },
        { max_parallel: "1" },
        { cache_ttl: 86_401 },
        { allow_ips: ["10.0.0.0/33"] },
        { allow_ips: ["localhost"] },
        { models: "a".repeat(300) },
        { unlimited_quota: 1 },
        { user_id: -1 },
        { colour: "red" },
      ];
      for (const fields of wrong) {
        const refused = await refusalOf(await post({ name: "n", ...fields }));
        expect([fields, refused.status, refused.code]).toEqual([fields, 400, "invalid_field"]);
        const token = await make();
        expect([fields, (await change(token.id, fields)).status]).toEqual([fields, 400]);
      }
    });

    test("a given quota makes it finite; every field is kept as it was given", async () => {
      const fields = {
        user_id: 7,
        status: 0,
        expired_time: 4_000_000_000,
        remain_quota: 500,
        models: ["a", "b"],
        rpm: 1,
        allow_ips: ["10.0.0.0/8", "::1"],
        group: "vip,default",
        tpm: 2,
        max_parallel: 3,
        cache_ttl: 4,
      };
      expect(await make(fields)).toMatchObject({ ...fields, unlimited_quota: false });
      expect(await make({ remain_quota: 5, unlimited_quota: true })).toMatchObject({ unlimited_quota: true });
    });

    test("a change keeps every other field; a key never changes; what is read can be sent back", async () => {
      const { key, ...made } = await make({ remain_quota: 5000, models: ["a"], expired_time: 4_000_000_000 });
      const masked = await show(made.id);
      const renamed = await (await change(made.id, { name: "renamed" }, "PUT")).json();
      expect(renamed).toEqual({ ...masked, name: "renamed" });
      expect(await (await change(made.id, renamed as Json, "PUT")).json()).toEqual(renamed);
      const refused = await refusalOf(await change(made.id, { key: "sk-another-key" }));
      expect([refused.status, refused.code]).toEqual([400, "invalid_field"]);
      await makeChannel(target(), upstream);
      expect((await chat(target(), key, { model: "a" })).status).toBe(200);
    });

    test("a deleted one is gone: for its operator and for its client", async () => {
      await makeChannel(target(), upstream);
      const token = await make();
      expect((await chat(target(), token.key)).status).toBe(200);
      const answer = await manage(target(), "DELETE", `/api/token/${token.id}`);
      expect([answer.status, await answer.text()]).toEqual([204, ""]);
      expect(await chatCode(await chat(target(), token.key))).toBe("invalid_api_key");
      for (const method of ["GET", "PUT", "PATCH", "DELETE"]) {
        const body = method === "GET" ? undefined : {};
        const gone = await refusalOf(await manage(target(), method, `/api/token/${token.id}`, body));
        expect([method, gone.status, gone.code]).toEqual([method, 404, "token_not_found"]);
      }
    });

    test("one that ends or changes while a body is on its way counts as it is when all of it is there", async () => {
      await makeChannel(target(), upstream);
      const changes: [(token: TokenJson) => Promise<unknown>, string][] = [
        [({ id }) => managed(target(), "DELETE", `/api/token/${id}`), "invalid_api_key"],
        [({ id }) => change(id, { status: 0 }), "token_disabled"],
        [({ id }) => change(id, { expired_time: 1 }), "token_expired"],
        [({ id }) => change(id, { allow_ips: ["192.0.2.1"] }), "ip_not_allowed"],
        [({ id }) => change(id, { models: ["other"] }), "model_not_allowed"],
        [() => make(), "chat.completion"],
      ];
      for (const [act, told] of changes) {
        const token = await make();
        using connection = await openRaw(target().url);
        // Longer than what is read in one piece.
        const body = `{"model":"a","messages":[{"role":"user","content":"${"x".repeat(64 * KiB)}"}]}`;
        connection.send(
          `POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${token.key}\r\n` +
            `Content-Length: ${body.length}\r\n\r\n${body[0]}`,
        );
        const isRead = async () => (await metricOf(target(), "gokv_body_budget_used_bytes")) > 0;
        await eventually("the body is being read", WAIT_MS, isRead);
        await act(token);
        connection.send(body.slice(1));
        expect(await connection.received(/HTTP\/1\.1 \d{3} [\s\S]*\r\n\r\n[\s\S]*\}/)).toContain(told);
      }
      expect(upstream.requests).toHaveLength(1);
    });

    test("lists come in pages, by status and by user", async () => {
      const made: number[] = [];
      for (const fields of [{ user_id: 1 }, { user_id: 1, status: 2 }, { user_id: 2 }])
        made.push((await make(fields)).id);
      const ids = async (query: string) => {
        const page = await manage(target(), "GET", `/api/token/?${query}`);
        return [
          ((await page.json()) as TokenJson[]).map(({ id }) => made.indexOf(id)),
          page.headers.get("x-total-count"),
        ];
      };
      expect(await ids("")).toEqual([[0, 1, 2], "3"]);
      expect(await ids("limit=1&offset=1")).toEqual([[1], "3"]);
      expect(await ids("status=0")).toEqual([[1], "1"]);
      expect(await ids("user_id=1&status=1")).toEqual([[0], "1"]);
      for (const query of ["limit=1001", "limit=0", "status=3", "user_id=x", "colour=red"]) {
        expect([query, (await manage(target(), "GET", `/api/token?${query}`)).status]).toEqual([query, 400]);
      }
    });

    test("a disabled, an expired, an unknown one gets nowhere, and a change counts from the next request", async () => {
      await makeChannel(target(), upstream);
      const disabled = [await make({ key: "sk-nexus-disabled", status: 0 }), await make({ status: 2 })];
      for (const { key } of disabled) expect(await chatCode(await chat(target(), key))).toBe("token_disabled");
      const expired = await make({ expired_time: nowSeconds() - 1 });
      expect(await chatCode(await chat(target(), expired.key))).toBe("token_expired");
      expect(await chatCode(await chat(target(), "sk-fake-token"))).toBe("invalid_api_key");
      expect(upstream.requests).toEqual([]);
      const token = disabled[0]!;
      for (const [fields, code] of [
        [{ status: 1 }, null],
        [{ models: ["other"] }, "model_not_allowed"],
        [{ models: [], expired_time: 1 }, "token_expired"],
        [{ expired_time: -1, allow_ips: ["192.0.2.1"] }, "ip_not_allowed"],
        [{ allow_ips: ["127.0.0.0/8", "::1"] }, null],
        [{ group: "none" }, "no_available_channel"],
      ] as [Json, string | null][]) {
        expect((await change(token.id, fields)).status).toBe(200);
        expect([fields, await chatCode(await chat(target(), token.key))]).toEqual([fields, code]);
      }
    });

    test("its use moves accessed_time, in whole seconds", async () => {
      await makeChannel(target(), upstream);
      const token = await make();
      expect((await show(token.id)).accessed_time).toBe(0);
      await chat(target(), token.key);
      await eventually("the use is noted", WAIT_MS, async () => (await show(token.id)).accessed_time !== 0);
      const { accessed_time } = await show(token.id);
      expect(Number.isInteger(accessed_time)).toBe(true);
      expect(Math.abs((accessed_time as number) - nowSeconds())).toBeLessThan(30);
    });

    test("a use that is not logged moves accessed_time as well", async () => {
      const token = await make();
      expect((await ask(target(), token.key, "/models")).status).toBe(200);
      await eventually("the use is noted", WAIT_MS, async () => (await show(token.id)).accessed_time !== 0);
    });

    test("quota is added and taken away, and given anew, but not both at once", async () => {
      const token = await make({ remain_quota: 100 });
      const remain = async (fields: Json) =>
        ((await (await change(token.id, fields)).json()) as TokenJson).remain_quota;
      expect(await remain({ add_quota: 50 })).toBe(150);
      expect(await remain({ add_quota: -20 })).toBe(130);
      expect(await remain({ add_quota: -1000 })).toBe(0);
      expect(await remain({ remain_quota: 7 })).toBe(7);
      const both = await refusalOf(await change(token.id, { remain_quota: 7, add_quota: 1 }));
      expect([both.status, both.code]).toEqual([400, "invalid_field"]);
    });

    test("no change during traffic brings spent quota back", async () => {
      const granted = 1_000_000;
      await makeChannel(target(), upstream);
      const token = await make({ remain_quota: granted });
      const stale = await show(token.id);
      const calls = Array.from({ length: 20 }, () => chat(target(), token.key));
      const changes = Array.from({ length: 10 }, (_, index) => [
        change(token.id, { name: `n${index}` }),
        change(token.id, { ...stale, name: `whole ${index}` }, "PUT"),
      ]).flat();
      for (const answer of await Promise.all([...calls, ...changes])) expect(answer.status).toBe(200);
      const settled = async () => {
        const { remain_quota, used_quota } = await show(token.id);
        return (used_quota as number) > 0 && (remain_quota as number) + (used_quota as number) === granted;
      };
      await eventually("everything is settled", WAIT_MS, settled);
      const after = (await (await change(token.id, { ...stale, name: "late" }, "PUT")).json()) as TokenJson;
      const { used_quota } = await show(token.id);
      expect(after).toMatchObject({ name: "late", used_quota, remain_quota: granted - (used_quota as number) });
    });

    test("quota granted in a body that is out of date counts, less what was used since", async () => {
      await makeChannel(target(), upstream);
      const token = await make({ remain_quota: 1_000_000 });
      const stale = await show(token.id);
      const remain = async (fields: Json) =>
        ((await (await change(token.id, { ...stale, ...fields }, "PUT")).json()) as TokenJson).remain_quota;
      expect((await chat(target(), token.key)).status).toBe(200);
      await eventually("the call is settled", WAIT_MS, async () => (await show(token.id)).used_quota !== 0);
      const used = (await show(token.id)).used_quota as number;
      expect(await remain({ remain_quota: 3_000_000 })).toBe(3_000_000 - used);
      // Sent again, or as it was read, it grants nothing; nor can it be told from one that takes quota away.
      for (const remain_quota of [3_000_000, 1_000_000, 10]) {
        expect([remain_quota, await remain({ remain_quota })]).toEqual([remain_quota, 3_000_000 - used]);
      }
      expect(await remain({ remain_quota: 10, used_quota: used })).toBe(10);
      expect(await remain({ remain_quota: 20, used_quota: undefined })).toBe(20);
    });

    test("quota granted while a call is under way counts once, as does what the call sets aside", async () => {
      await makeChannel(target(), upstream);
      const token = await make({ remain_quota: 1_000_000 });
      const { promise, resolve } = Promise.withResolvers<void>();
      upstream.next(afterwards(promise, answerNormally));
      const call = chat(target(), token.key);
      await upstream.request(0);
      const read = await show(token.id);
      const open = 1_000_000 - (read.remain_quota as number);
      expect(open).toBeGreaterThan(0);
      const put = async (fields: Json) => (await change(token.id, { ...read, ...fields }, "PUT")).json();
      expect(await put({ name: "unchanged" })).toMatchObject({ remain_quota: read.remain_quota });
      expect(await put({ remain_quota: 3_000_000 })).toMatchObject({ remain_quota: 3_000_000 - open });
      resolve();
      expect((await call).status).toBe(200);
      await eventually("the call is settled", WAIT_MS, async () => (await show(token.id)).used_quota !== 0);
      expect(await put({ name: "late" })).toMatchObject({ name: "late" });
      const { remain_quota, used_quota } = await show(token.id);
      expect((remain_quota as number) + (used_quota as number)).toBe(3_000_000);
    });

    for (const isKilled of [false, true]) {
      const then = isKilled ? "through a restart" : "when it ends";
      test(`quota set to 0 while a call is under way stays 0 ${then}`, async () => {
        await makeChannel(target(), upstream);
        const token = await make({ remain_quota: 100_000 });
        const { promise, resolve } = Promise.withResolvers<void>();
        upstream.next(afterwards(promise, answerNormally));
        const call = chat(target(), token.key, { max_tokens: 90_000 }).catch(() => null);
        await upstream.request(0);
        expect(await (await change(token.id, { remain_quota: 0 })).json()).toMatchObject({ remain_quota: 0 });
        expect((await chat(target(), token.key)).status).toBe(429);
        if (isKilled) await target().restart();
        resolve();
        expect((await call)?.status).toBe(isKilled ? undefined : 200);
        if (!isKilled) {
          await eventually("the call is settled", WAIT_MS, async () => (await show(token.id)).used_quota !== 0);
        }
        expect(await show(token.id)).toMatchObject({ remain_quota: 0 });
        expect((await chat(target(), token.key)).status).toBe(429);
      });
    }

    test("tokens and what they used survive a restart", async () => {
      await makeChannel(target(), upstream);
      const token = await make({ remain_quota: 1_000_000 });
      expect((await chat(target(), token.key)).status).toBe(200);
      await eventually("the call is settled", WAIT_MS, async () => (await show(token.id)).used_quota !== 0);
      const before = await show(token.id);
      await target().restart();
      expect(await show(token.id)).toEqual(before);
      expect((await chat(target(), token.key)).status).toBe(200);
    });
  });

  describe(`the usage log of ${name}`, () => {
    const target = useTarget(open, RELAY_ENV);
    let upstream: FaultUpstream;
    let rows: readonly LogRow[] = [];
    const log = (query = "") => managed<LogPage>(target(), "GET", `/api/log?${query}`);
    const CALLS = 13;

    beforeAll(async () => {
      upstream = await FaultUpstream.start();
      const channels = [await makeChannel(target(), upstream, { models: ["a", "b", "cut"] })];
      channels.push(await makeChannel(target(), upstream, { models: ["c"], auto_ban: false }));
      upstream.forModel("b", refuse(400, { code: "bad" }));
      upstream.forModel("c", answerWith({ usage: { prompt_tokens: 100, completion_tokens: 11 } }));
      const tokens = [await makeToken(target()), await makeToken(target(), { remain_quota: 1_000_000 })];
      upstream.forModel("cut", stream({ events: [chatChunk("half a")], end: "clean" }));
      for (let call = 0; call < CALLS - 1; call++) {
        const headers = { model: ["a", "b", "c"][call % 3], stream: call === 0 };
        await (await chat(target(), tokens[call % 2]!.key, headers)).text();
      }
      await (await chat(target(), tokens[0]!.key, { model: "cut", stream: true })).text();
      await eventually("every call is logged", WAIT_MS, async () => {
        rows = (await log()).data;
        return rows.length === CALLS;
      });
    });
    afterAll(() => upstream[Symbol.asyncDispose]());

    test("has one row for each call, newest first", () => {
      expect(new Set(rows.map(({ request_id }) => request_id)).size).toBe(CALLS);
      const times = rows.map(({ ts }) => ts);
      expect(times).toEqual(times.toSorted((left, right) => right - left));
      expect(
        rows.filter(({ model }) => model === "b").every(({ status, quota }) => status === 400 && quota === 0),
      ).toBe(true);
      expect(rows.filter(({ model }) => model === "c").map(({ quota }) => quota)).toEqual([111, 111, 111, 111]);
      expect(rows.filter(({ stream }) => stream === 1)).toHaveLength(2);
      const broken = rows.filter(({ model }) => model === "cut").map(({ status, error_code }) => [status, error_code]);
      expect(broken).toEqual([[200, "upstream_stream_interrupted"]]);
    });

    test("is read in pages without a gap or a double", async () => {
      for (const query of ["", "model=a&", "token_id=1&status=200&"]) {
        const whole = (await log(query)).data;
        const seen: LogRow[] = [];
        let before = "";
        do {
          const page: LogPage = await log(`${query}limit=2${before}`);
          expect(page.data.length).toBeLessThanOrEqual(2);
          seen.push(...page.data);
          before = page.next === null ? "" : `&before=${page.next}`;
        } while (before !== "");
        expect([query, whole.length > 2, seen]).toEqual([query, true, [...whole]]);
      }
    });

    test("is filtered by token, channel, model, status, request and time", async () => {
      const middle = rows[5]!;
      const filters: readonly (readonly [string, (row: LogRow) => boolean])[] = [
        ["token_id=2", (row) => row.token_id === 2],
        ["channel_id=1", (row) => row.channel_id === 1],
        ["model=c", (row) => row.model === "c"],
        ["status=400", (row) => row.status === 400],
        ["status=400&token_id=1", (row) => row.status === 400 && row.token_id === 1],
        [`request_id=${middle.request_id}`, (row) => row === middle],
        [`from=${middle.ts}`, (row) => row.ts >= middle.ts],
        [`to=${middle.ts}`, (row) => row.ts < middle.ts],
        [`from=${Math.floor(middle.ts / 1000)}`, (row) => row.ts >= Math.floor(middle.ts / 1000) * 1000],
        ["request_id=none", () => false],
      ];
      for (const [query, isMeant] of filters) {
        expect([query, (await log(query)).data]).toEqual([query, rows.filter(isMeant)]);
      }
    });

    test("adds up by token, channel, model and day to what a recount gives, broken streams as errors", async () => {
      const isError = ({ status, error_code }: LogRow) => status >= 400 || error_code !== null;
      const dayOf = (row: LogRow) => new Date(row.ts).toISOString().slice(0, 10);
      const groups: readonly (readonly [string, (row: LogRow) => string | number | null])[] = [
        ["token", (row) => row.token_id],
        ["channel", (row) => row.channel_id],
        ["model", (row) => row.model],
        ["day", dayOf],
      ];
      for (const [group, keyOf] of groups) {
        const { data } = await managed<{ data: Json[] }>(target(), "GET", `/api/log/stat?group_by=${group}`);
        const recount = [...Map.groupBy(rows, keyOf)]
          .sort(([left], [right]) => (left! < right! ? -1 : 1))
          .map(([key, own]) => {
            const sum = (field: keyof LogRow) => own.reduce((total, row) => total + Number(row[field]), 0);
            const ttfts = own.flatMap((row) => (row.ttft_ms === null ? [] : [row.ttft_ms]));
            const average = (total: number, count: number) => Math.round((total / count) * 100) / 100;
            return {
              key,
              requests: own.length,
              errors: own.filter(isError).length,
              prompt_tokens: sum("prompt_tokens"),
              completion_tokens: sum("completion_tokens"),
              quota: sum("quota"),
              duration_ms_avg: average(sum("duration_ms"), own.length),
              ttft_ms_avg:
                ttfts.length === 0
                  ? null
                  : average(
                      ttfts.reduce((a, b) => a + b, 0),
                      ttfts.length,
                    ),
            };
          });
        expect([group, data]).toEqual([group, recount]);
      }
      const before = await managed<{ data: Json[] }>(target(), "GET", `/api/log/stat?to=${rows.at(-1)!.ts}`);
      expect(before.data).toEqual([]);
      for (const { id } of await managed<TokenJson[]>(target(), "GET", "/api/token")) {
        const { used_quota } = await managed<TokenJson>(target(), "GET", `/api/token/${id}`);
        const own = rows.filter(({ token_id }) => token_id === id);
        expect(used_quota).toBe(own.reduce((total, { quota }) => total + quota, 0));
      }
    });

    test("refuses what it does not understand", async () => {
      for (const query of [
        "limit=0",
        "limit=1001",
        "before=5",
        "status=ok",
        "from=yesterday",
        "token_id=-1",
        "colour=red",
      ]) {
        expect([query, (await manage(target(), "GET", `/api/log?${query}`)).status]).toEqual([query, 400]);
      }
      for (const query of ["group_by=hour", "from=x", "limit=5"]) {
        expect([query, (await manage(target(), "GET", `/api/log/stat?${query}`)).status]).toEqual([query, 400]);
      }
    });
  });
}
