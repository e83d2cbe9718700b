// Which channel made a response is known for as long as the response is kept there, by the clock.

import { expect, test } from "bun:test";
import { ResponseStore } from "../../src/relay/response-store.ts";
import { openRelayStore } from "../support/relay-store.ts";

const DAY_MS = 86_400_000;
const SECOND_MS = 1000;

test("a response is known to its token for thirty days, and to no other token", async () => {
  await using relay = await openRelayStore();
  let nowMs = 1_800_000_000_000;
  const responses = new ResponseStore(relay.store, () => nowMs);
  await responses.bind("resp_1", 1, 7);
  nowMs += 30 * DAY_MS - SECOND_MS;
  expect([await responses.findChannel("resp_1", 1), await responses.findChannel("resp_1", 2)]).toEqual([7, null]);
  nowMs += SECOND_MS;
  expect(await responses.findChannel("resp_1", 1)).toBeNull();
});
