// Sums of the usage log as an operator asks for them: over a day when nothing is said of the time.

import { afterEach, beforeEach, expect, test } from "bun:test";
import { RequestScope } from "../../src/http/request-scope.ts";
import type { ManagementRequest } from "../../src/relay/management-request.ts";
import { USAGE_LOG_ROUTES } from "../../src/relay/usage-log-routes.ts";
import { UsageLogStore } from "../../src/relay/usage-log-store.ts";
import { logRow, openRelayStore, type RelayStore } from "../support/relay-store.ts";

const NOW_MS = 1_800_000_000_000;
const HOUR_MS = 3_600_000;
const STATE = { isDraining: false, hasFailed: false, trustedProxies: null };

let relay: RelayStore;
beforeEach(async () => {
  relay = await openRelayStore();
});
afterEach(() => relay[Symbol.asyncDispose]());

/** How many requests the sums speak of, by the model that each row has of its own. */
async function summed(query: string): Promise<string[]> {
  const request = new Request(`http://h/api/log/stat?group_by=model${query}`);
  const services = { usageLog: new UsageLogStore(relay.store), clock: () => NOW_MS };
  const scope = new RequestScope(request, null, STATE);
  const asked = { services, scope, id: 0 } as unknown as ManagementRequest;
  const answer = await USAGE_LOG_ROUTES["/stat"]!.GET!(asked);
  return ((await answer.json()) as { data: { key: string }[] }).data.map(({ key }) => key);
}

test("sums are over the last 24 hours unless their beginning is given", async () => {
  const ages = { now: 0, "a second less than a day": 24 * HOUR_MS - 1000, "25 hours": 25 * HOUR_MS };
  const rows = Object.entries(ages).map(([model, ageMs]) => logRow({ model, ts: NOW_MS - ageMs }));
  await relay.store.run("relay.logBatch", { rows: JSON.stringify(rows), touched: [] });
  expect(await summed("")).toEqual(["a second less than a day", "now"]);
  const from = Math.floor((NOW_MS - 25 * HOUR_MS) / 1000);
  expect(await summed(`&from=${from}`)).toEqual(["25 hours", "a second less than a day", "now"]);
});
