// Puts the parts of accounts together: what hashes, signs, remembers and lets in.

import { Passwords } from "../auth/passwords.ts";
import { RefreshTokens } from "../auth/refresh-token.ts";
import { UserTokens } from "../auth/user-token.ts";
import type { Metrics } from "../http/metrics.ts";
import type { Clock } from "../shared/clock.ts";
import type { Log } from "../shared/log.ts";
import type { Settings } from "../shared/settings.ts";
import type { TableStore } from "../storage/unit-of-work.ts";
import { AccountMetrics } from "./account-metrics.ts";
import { AccountStore } from "./account-store.ts";
import { Accounts } from "./accounts.ts";
import { LoginThrottle } from "./login-throttle.ts";
import type { TaskUnits } from "./task-units.ts";
import type { TaskWriter } from "./task-writer.ts";
import { UserGate } from "./user-gate.ts";

interface Given {
  readonly settings: Settings;
  readonly store: TableStore<TaskUnits>;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly log: Log;
}

interface OpenedAccounts {
  readonly gate: UserGate;
  readonly accounts: Accounts;
  /** Registered nowhere yet. */
  readonly accountMetrics: AccountMetrics;
}

export function openAccounts(given: Given, writer: TaskWriter): OpenedAccounts {
  const { settings, clock, log, metrics } = given;
  const accountMetrics = new AccountMetrics();
  const store = new AccountStore(given.store);
  const tokens = new UserTokens(settings.secrets, clock);
  const gate = new UserGate({
    tokens,
    findLive: (who) => store.isLive(who),
    onFailure: (reason) => metrics.countAuthFailure(reason),
  });
  const accounts = new Accounts({
    settings,
    clock,
    log,
    store,
    writer,
    gate,
    tokens,
    refreshTokens: new RefreshTokens(settings.secrets),
    passwords: new Passwords({
      memoryKib: settings.passwordMemoryKib,
      passes: settings.passwordTime,
      parallel: settings.passwordParallel,
    }),
    throttle: new LoginThrottle(clock),
    metrics: accountMetrics,
  });
  return { gate, accounts, accountMetrics };
}
