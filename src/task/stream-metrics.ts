// The figure of live streams, asked for when somebody looks.

import { Gauge, type Registry } from "prom-client";

export function observeStreams(registry: Registry, count: () => number): void {
  new Gauge({
    name: "gokv_task_streams",
    help: "Live streams of tasks that are open.",
    registers: [registry],
    collect() {
      this.set(count());
    },
  });
}
