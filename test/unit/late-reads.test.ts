// Lists that wait while their token is revoked: they are not answered with what a successor has stored since.

import { expect, test } from "bun:test";
import { ByteBudget } from "../../src/http/byte-budget.ts";
import { RequestScope } from "../../src/http/request-scope.ts";
import { GcraLimiter } from "../../src/limits/gcra-limiter.ts";
import { MiB } from "../../src/shared/bounds.ts";
import { systemClock } from "../../src/shared/clock.ts";
import type { AppError } from "../../src/shared/errors.ts";
import { readSettings } from "../../src/shared/settings.ts";
import type { KvEngine } from "../../src/storage/kv-engine.ts";
import { AppGate } from "../../src/token/app-gate.ts";
import { createToken } from "../../src/token/app-token.ts";
import { listKeys, listValues } from "../../src/token/token-actions.ts";
import type { TokenServices } from "../../src/token/token-request.ts";
import { TokenStore } from "../../src/token/token-store.ts";
import { openOwnStore } from "../support/own-store.ts";

const STATE = { isDraining: false, hasFailed: false, trustedProxies: null };
const APP = { name: "App", description: null, homepage: null, permissionPrefix: null, permissionKey: [] };

for (const [name, act] of Object.entries({ listKeys, listValues })) {
  test(`${name} shows nothing of a namespace that has changed hands while it waited`, async () => {
    await using own = await openOwnStore();
    const { sqlite: store } = own;
    const tokens = new TokenStore(store);
    const install = async (id: string, app: string) => {
      await tokens.change("token.createDevice", { uuid: "room", name: null });
      await tokens.change("token.createApp", { id: app, ...APP });
      const { token, ...kept } = createToken();
      await tokens.change("token.createInstallation", { id, deviceUuid: "room", appId: app, ...kept });
      return token;
    };
    const credential = await install("first", "a");
    const installation = (await tokens.findByToken(credential))!;
    const engine: Pick<KvEngine, "pageByOffset"> = {
      async pageByOffset(query, turn) {
        await tokens.change("token.deleteDevice", { uuid: "room", isPurge: true });
        await install("second", "b");
        const rest = { contentType: "application/json", metadata: null, ttlMs: null, condition: null, creatorIp: null };
        const value = new TextEncoder().encode('"of the second"');
        await store.write({ kind: "put", bucket: "room", key: "k", value, installationId: "second", ...rest });
        return store.pageByOffset(query, turn);
      },
    };
    const settings = readSettings({ JWT_SECRET: "0123456789abcdef0123456789abcdef", GIN_MODE: "test" });
    const limiter = new GcraLimiter(systemClock, MiB);
    const appGate = new AppGate({ tokens, limiter, clock: systemClock, settings, onFailure: () => undefined });
    const budget = new ByteBudget(4 * MiB);
    const services = { engine, budget, tokens, appGate, settings } as unknown as TokenServices;
    const scope = new RequestScope(new Request("http://h/kv/token/"), null, STATE);
    const request = { scope, mount: "/kv/token", key: "", body: null, credential, installation };
    const answer = await act(services, request).catch((error: AppError) => error.code);
    expect([answer, budget.usedBytes]).toEqual(["token_invalid", 0]);
  });
}
