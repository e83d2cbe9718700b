// The figures of accounts. Labels hold fixed words; never a name, an address or a token.

import { Counter, type Registry } from "prom-client";

export class AccountMetrics {
  readonly #reused = new Counter({
    name: "gokv_task_refresh_reuse_total",
    help: "Refresh tokens that came again after their time: somebody else may have them. Their sessions were ended.",
    registers: [],
  });

  /** Once for a registry: a name that it knows is refused. */
  registerIn(registry: Registry): void {
    registry.registerMetric(this.#reused);
  }

  countReuse(): void {
    this.#reused.inc();
  }
}
