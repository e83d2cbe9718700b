// What follows from a failed attempt, row by row, and how long an upstream wants to be left alone.

import { describe, expect, test } from "bun:test";
import {
  type Failure,
  judgeFailure,
  retryAfterMs,
  retryAfterSeconds,
  type StatusFailure,
} from "../../src/relay/retry-rules.ts";

const NOTHING_SAID = { code: null, type: null, param: null, numericCode: null };

function answered(status: number, of: Partial<StatusFailure> = {}): Failure {
  return { kind: "status", status, ...NOTHING_SAID, headers: new Headers(), ...of };
}

/** Whether another channel may try, and what becomes of this one. */
function outcome(failure: Failure, retriesTimeouts = false): string {
  const { mayRetry, effect } = judgeFailure(failure, retriesTimeouts);
  return `${mayRetry ? "again" : "final"} ${effect}`;
}

const KEY_WORDS = [
  "insufficient_quota",
  "invalid_api_key",
  "account_deactivated",
  "authentication_error",
  "permission_error",
];

describe("after a failure", () => {
  test("without an answer another channel tries, and the connection counts against this one", () => {
    expect(outcome({ kind: "unreachable", isAddressRefused: false, systemCode: null })).toBe("again connect_failure");
  });

  test("with something that is no answer another channel tries, and it counts against this one", () => {
    expect(outcome({ kind: "bad_response" })).toBe("again failure");
    for (const status of [200, 204, 301, 302, 307, 308, 399]) {
      expect([status, outcome(answered(status))]).toEqual([status, "again failure"]);
    }
  });

  test("with more than is taken the answer is final and nobody's fault: another would be paid for as well", () => {
    expect([outcome({ kind: "oversized" }), outcome({ kind: "oversized" }, true)]).toEqual([
      "final none",
      "final none",
    ]);
  });

  test("in the upstream another channel tries, and it counts against this one", () => {
    for (const status of [408, 500, 501, 502, 503, 505, 520, 529, 599]) {
      expect([status, outcome(answered(status)), outcome(answered(status), true)]).toEqual([
        status,
        "again failure",
        "again failure",
      ]);
    }
  });

  test("of time no other channel tries unless that is wanted: it may already be billed", () => {
    for (const failure of [{ kind: "timeout", isCutShort: false } as const, answered(504), answered(524)]) {
      expect([outcome(failure), outcome(failure, true)]).toEqual(["final failure", "again failure"]);
    }
  });

  test("of time that others had used up, nothing counts against this channel", () => {
    const failure = { kind: "timeout", isCutShort: true } as const;
    expect([outcome(failure), outcome(failure, true)]).toEqual(["final none", "again none"]);
  });

  test("of the rate the model rests on this channel while another tries", () => {
    expect(outcome(answered(429))).toBe("again cool");
    expect(outcome(answered(429, { code: "rate_limit_exceeded", type: "requests" }))).toBe("again cool");
    expect(outcome(answered(429, { code: "20012", numericCode: 20012 }))).toBe("again cool");
  });

  test("of the key the channel is taken out of use while another tries", () => {
    expect([outcome(answered(401)), outcome(answered(402))]).toEqual(["again disable", "again disable"]);
    for (const status of [403, 429]) {
      for (const word of KEY_WORDS) {
        expect([status, word, outcome(answered(status, { code: word }))]).toEqual([status, word, "again disable"]);
        expect([status, word, outcome(answered(status, { type: word }))]).toEqual([status, word, "again disable"]);
      }
    }
  });

  test("that only resembles one of the key, nothing is taken out of use", () => {
    for (const word of ["Invalid_API_Key", "invalid_api_key ", "xinvalid_api_key", "", "error: insufficient_quota"]) {
      expect([word, outcome(answered(429, { code: word }))]).toEqual([word, "again cool"]);
      expect([word, outcome(answered(403, { type: word }))]).toEqual([word, "again none"]);
    }
    for (const word of KEY_WORDS) {
      for (const status of [400, 404, 409, 422]) {
        expect([status, word, outcome(answered(status, { code: word }))]).toEqual([status, word, "final none"]);
      }
      expect([word, outcome(answered(500, { code: word, type: word }))]).toEqual([word, "again failure"]);
    }
  });

  test("of a request that is forbidden another channel tries, and this one is left alone", () => {
    expect(outcome(answered(403))).toBe("again none");
    expect(outcome(answered(403, { code: "model_not_found" }))).toBe("again none");
  });

  test("of an unknown model it is switched off on this channel while another tries", () => {
    for (const word of ["model_not_found", "not_found_error", "NotFoundError"]) {
      expect([word, outcome(answered(404, { code: word }))]).toEqual([word, "again model_off"]);
      expect([word, outcome(answered(404, { type: word }))]).toEqual([word, "again model_off"]);
    }
    for (const status of [400, 404]) {
      expect([status, outcome(answered(status, { numericCode: 20012 }))]).toEqual([status, "again model_off"]);
    }
  });

  test("that names something else of the request than its model, no model is switched off", () => {
    for (const word of ["model_not_found", "not_found_error", "NotFoundError"]) {
      expect([word, outcome(answered(404, { code: word, param: "model" }))]).toEqual([word, "again model_off"]);
      for (const param of ["previous_response_id", "input[0].file_id", "Model"]) {
        expect([word, outcome(answered(404, { code: word, param }))]).toEqual([word, "again none"]);
        expect([word, outcome(answered(404, { type: word, param }))]).toEqual([word, "again none"]);
      }
    }
    expect(outcome(answered(400, { numericCode: 20012, param: "input" }))).toBe("again none");
  });

  test("of the request itself the answer is final and nobody's fault", () => {
    for (const status of [400, 404, 405, 406, 409, 410, 411, 413, 414, 415, 418, 421, 422, 425, 426, 428, 431, 451]) {
      expect([status, outcome(answered(status), true)]).toEqual([status, "final none"]);
    }
    expect(outcome(answered(400, { code: "model_not_found" }))).toBe("final none");
    expect(outcome(answered(400, { numericCode: 20013 }))).toBe("final none");
    expect(outcome(answered(422, { numericCode: 20012 }))).toBe("final none");
  });
});

test("of several failures the client sees the final one, then rates, outages, missing models, keys", () => {
  const byRank: Failure[][] = [
    [answered(401), answered(402), answered(403, { code: "permission_error" }), answered(429, { type: KEY_WORDS[0]! })],
    [answered(404, { code: "model_not_found" }), answered(403)],
    [
      answered(500),
      answered(504),
      answered(302),
      answered(408),
      ...([
        { kind: "unreachable", isAddressRefused: false, systemCode: null },
        { kind: "timeout", isCutShort: false },
        { kind: "bad_response" },
      ] as const),
    ],
    [answered(429)],
    [answered(400), answered(404), answered(422)],
  ];
  const ranks = byRank.map((failures) => new Set(failures.map((failure) => judgeFailure(failure, true).rank)));
  expect(ranks.map((set) => set.size)).toEqual([1, 1, 1, 1, 1]);
  const order = ranks.map((set) => [...set][0]!);
  expect(order).toEqual(order.toSorted((a, b) => a - b));
  expect(new Set(order).size).toBe(order.length);
});

describe("the wait that an upstream asks for", () => {
  const NOW_MS = Date.parse("2027-01-15T08:00:00Z");
  const wait = (headers: Record<string, string>) => retryAfterMs(new Headers(headers), NOW_MS);

  test("is read in seconds, as a date and in milliseconds", () => {
    for (const [headers, ms] of [
      [{ "retry-after": "7" }, 7000],
      [{ "Retry-After": "1.5" }, 1500],
      [{ "retry-after": "Fri, 15 Jan 2027 08:00:30 GMT" }, 30_000],
      [{ "retry-after": "Friday, 15-Jan-27 08:01:00 GMT" }, 60_000],
      [{ "retry-after-ms": "2500" }, 2500],
      [{ "retry-after-ms": "1500.4" }, 1501],
      [{ "x-ms-retry-after-ms": "61000" }, 61_000],
    ] as const) {
      expect([headers, wait(headers)]).toEqual([headers, ms]);
    }
  });

  test("is the longest one when there are several, and what is unreadable does not count", () => {
    expect(wait({ "retry-after": "2", "retry-after-ms": "1500", "x-ms-retry-after-ms": "1200" })).toBe(2000);
    expect(wait({ "retry-after": "1", "retry-after-ms": "1700" })).toBe(1700);
    expect(wait({ "retry-after": "soon", "retry-after-ms": "1700" })).toBe(1700);
    expect(wait({ "retry-after": "3", "retry-after-ms": "-1" })).toBe(3000);
  });

  test("is at least a second and at most an hour", () => {
    for (const [headers, ms] of [
      [{ "retry-after": "0" }, 1000],
      [{ "retry-after-ms": "1" }, 1000],
      [{ "retry-after": "Thu, 01 Jan 1970 00:00:00 GMT" }, 1000],
      [{ "retry-after": "Fri, 15 Jan 2027 07:59:59 GMT" }, 1000],
      [{ "retry-after": "3600" }, 3_600_000],
      [{ "retry-after": "3601" }, 3_600_000],
      [{ "retry-after": "9".repeat(400) }, 3_600_000],
      [{ "retry-after": "Fri, 31 Dec 9999 23:59:59 GMT" }, 3_600_000],
    ] as const) {
      expect([headers, wait(headers)]).toEqual([headers, ms]);
    }
  });

  test("is unknown when nothing readable is there", () => {
    expect(wait({})).toBeNull();
    for (const text of [
      "",
      "-1",
      "1e3",
      "0x10",
      "NaN",
      "Infinity",
      "1,5",
      "2, 3",
      "+1",
      "1 s",
      ".5",
      "5.",
      "tomorrow",
      "2027-01-15T08:00:30Z",
      "15 Jan 2027 08:00:30",
      "Fri Jan 15 08:00:30 2027",
      "Fri, 15 Jan 2027 08:00:30",
      "Fri, 99 Jan 2027 08:00:30 GMT",
      "Fri, 15 Foo 2027 08:00:30 GMT",
      "Fri, 15 Jan 2027 08:00:30 +0900",
    ]) {
      expect([text, wait({ "retry-after": text })]).toEqual([text, null]);
    }
    expect(wait({ "retry-after-ms": "Fri, 15 Jan 2027 08:00:30 GMT" })).toBeNull();
  });
});

describe("how long an upstream wants to be left alone, as a client is told", () => {
  const NOW_MS = Date.parse("2027-01-15T08:00:00Z");
  const told = (headers: Record<string, string>) => retryAfterSeconds(new Headers(headers), NOW_MS);

  test("is the longest time in whole seconds, in whatever form it came", () => {
    for (const [headers, seconds] of [
      [{ "retry-after": "7" }, 7],
      [{ "retry-after": "7.2" }, 8],
      [{ "retry-after": "Fri, 15 Jan 2027 08:00:30 GMT" }, 30],
      [{ "retry-after-ms": "1500" }, 2],
      [{ "retry-after": "1", "x-ms-retry-after-ms": "2500" }, 3],
      [{ "retry-after": "sk-soon", "retry-after-ms": "2500" }, 3],
    ] as const) {
      expect([headers, told(headers)]).toEqual([headers, seconds]);
    }
  });

  test("is at least a second, and has no more than eight digits", () => {
    expect(told({ "retry-after": "0" })).toBe(1);
    expect(told({ "retry-after": "Fri, 15 Jan 2027 07:59:59 GMT" })).toBe(1);
    expect(told({ "retry-after": "99999999" })).toBe(99_999_999);
    for (const text of ["100000000", "9".repeat(400), "Fri, 31 Dec 9999 23:59:59 GMT"]) {
      expect([text, told({ "retry-after": text })]).toEqual([text, 99_999_999]);
    }
  });

  test("is unknown when nothing readable is there", () => {
    for (const headers of [{}, { "retry-after": "key sk-canary is limited" }, { "retry-after-ms": "soon" }]) {
      expect([headers, told(headers)]).toEqual([headers, null]);
    }
  });
});
