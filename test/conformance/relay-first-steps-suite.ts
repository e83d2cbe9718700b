// The first things anybody does with the relay: a key and a token in the settings, then channels and tokens of its own.

import { describe, expect, test } from "bun:test";
import { alterStore } from "../support/alter-store.ts";
import { eventually } from "../support/eventually.ts";
import type { Environment } from "../support/executable.ts";
import { FaultUpstream } from "../support/fault-upstream.ts";
import {
  ask,
  chat,
  clearRelay,
  dataOf,
  expectRelayError,
  makeChannel,
  makeToken,
  manage,
  managed,
  RELAY_ENV,
  relayErrorOf,
} from "../support/relay-client.ts";
import type { OpenTarget } from "../support/targets.ts";
import { wrongKey } from "../support/upstream-plans.ts";
import { useTarget } from "../support/use-target.ts";

const PROVIDER_KEY = "sk-provider-0123456789";
const TOKEN = "sk-nexus-of-the-settings-0123456789";

export function relayFirstStepsSuite(name: string, open: OpenTarget): void {
  describe(`the first token of the settings at ${name}`, () => {
    const target = useTarget(open, { ...RELAY_ENV, RELAY_BOOTSTRAP_TOKEN: TOKEN });

    test("is made as soon as the store takes it, when it did not at the start", async () => {
      const status = async () => (await ask(target(), TOKEN, "/models")).status;
      expect(await status()).toBe(200);
      await clearRelay(target());
      const { dbPath } = target();
      await alterStore(dbPath, "CREATE TRIGGER full BEFORE INSERT ON relay_token BEGIN SELECT RAISE(ABORT, 'no'); END");
      await target().restart();
      expect([await status(), await status()]).toEqual([500, 500]);
      await alterStore(dbPath, "DROP TRIGGER full");
      expect([await status(), (await manage(target(), "GET", "/api/token")).status]).toEqual([200, 200]);
    });
  });

  const settings = (upstream: FaultUpstream): Environment => ({
    ...RELAY_ENV,
    RELAY_BOOTSTRAP_TYPE: "Custom",
    RELAY_BOOTSTRAP_BASE_URL: upstream.url,
    RELAY_BOOTSTRAP_KEY: PROVIDER_KEY,
    RELAY_BOOTSTRAP_TOKEN: TOKEN,
  });

  describe(`a relay out of settings alone on ${name}`, () => {
    test("a key and a token in the settings are enough for an answer of a model", async () => {
      await using upstream = await FaultUpstream.start();
      await using target = await open(settings(upstream));
      const answer = await chat(target, TOKEN, { messages: [{ role: "user", content: "good morning" }] });
      expect([answer.status, answer.headers.get("content-type")]).toEqual([200, "application/json"]);
      const { choices } = (await answer.json()) as { choices: { message: { role: string; content: string } }[] };
      expect(choices[0]!.message).toEqual({ role: "assistant", content: "You said: good morning" });
      expect(dataOf(await (await chat(target, TOKEN, { stream: true })).text()).at(-1)).toBe("[DONE]");
      expect(upstream.keys).toEqual([PROVIDER_KEY, PROVIDER_KEY]);
    });

    test("with a wrong key the client gets the refusal of the provider, without the key", async () => {
      await using upstream = await FaultUpstream.start();
      await using target = await open(settings(upstream));
      upstream.always(wrongKey);
      const answer = await chat(target, TOKEN);
      const error = await relayErrorOf(answer);
      expect([answer.status, answer.headers.get("x-gokv-upstream-status"), error]).toEqual([
        401,
        "401",
        {
          message: "Incorrect API key provided: ***. You can find yours on your account page.",
          type: "invalid_request_error",
          param: null,
          code: "invalid_api_key",
        },
      ]);
    });

    test("with no channel and no key the server starts, and says what is missing", async () => {
      await using target = await open({ ...RELAY_ENV, RELAY_BOOTSTRAP_TOKEN: TOKEN });
      expect(await managed<unknown>(target, "GET", "/api/channel")).toEqual([]);
      const answer = await chat(target, TOKEN);
      await expectRelayError(answer, 500, "server_error", "no_available_channel");
    });
  });

  describe(`a relay with channels and tokens of its own on ${name}`, () => {
    const target = useTarget(open, RELAY_ENV);

    test("a token reaches one of two channels, with the key of that channel and never its own", async () => {
      await using upstream = await FaultUpstream.start();
      await clearRelay(target());
      await makeChannel(target(), upstream, { name: "渠道A", key: "sk-aaa" });
      await makeChannel(target(), upstream, { name: "渠道B", key: "sk-bbb" });
      await makeToken(target(), { name: "主力令牌", key: "sk-nexus-abc" });
      const keys = new Set<string | null>();
      for (let times = 1; times <= 40; times++) {
        const answer = await chat(target(), "sk-nexus-abc");
        expect([answer.status, await answer.text()]).toEqual([200, expect.stringContaining("You said: hi")]);
        expect(upstream.requests.length).toBe(times);
        keys.add(upstream.requests.at(-1)!.key);
      }
      // One of them is left out with a chance of 2 to the -39.
      expect([...keys].toSorted()).toEqual(["sk-aaa", "sk-bbb"]);
      for (const { headers, body, path } of upstream.requests) {
        expect(JSON.stringify([headers, body, path])).not.toContain("nexus");
      }
    });

    test("the only channel with a bad key relays the refusal each time, and is not disabled", async () => {
      await using upstream = await FaultUpstream.start();
      await clearRelay(target());
      upstream.always(wrongKey);
      const { id } = await makeChannel(target(), upstream, { name: "渠道C", key: "sk-ccc" });
      const token = await makeToken(target());
      for (let times = 1; times <= 10; times++) {
        const answer = await chat(target(), token.key);
        const { code, message } = await relayErrorOf(answer);
        expect([answer.status, code, upstream.requests.length]).toEqual([401, "invalid_api_key", times]);
        expect(message).not.toContain("sk-ccc");
      }
      const shown = () => managed(target(), "GET", `/api/channel/${id}`);
      await eventually("the channel says why", 5_000, async () => (await shown()).status_reason !== null);
      expect(await shown()).toMatchObject({ status: 1, status_reason: "invalid_api_key" });
    });

    test("when every channel was deleted a good token gets 500, and a wrong one still 401", async () => {
      await using upstream = await FaultUpstream.start();
      await clearRelay(target());
      await makeToken(target(), { key: "sk-nexus-abc" });
      const { id } = await makeChannel(target(), upstream);
      expect((await chat(target(), "sk-nexus-abc")).status).toBe(200);
      await managed(target(), "DELETE", `/api/channel/${id}`);
      const refused = await chat(target(), "sk-nexus-abc");
      await expectRelayError(refused, 500, "server_error", "no_available_channel");
      const wrong = await chat(target(), "sk-fake-token");
      await expectRelayError(wrong, 401, "invalid_request_error", "invalid_api_key");
      expect(upstream.requests.length).toBe(1);
    });
  });
}
