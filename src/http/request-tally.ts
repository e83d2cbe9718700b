// Counts answered requests on the hot path with a few additions, by route, method and status.

import type { MetricValue, Registry } from "prom-client";
import { Buckets, showFigure } from "./hot-figures.ts";

/** Bounds of the buckets of every histogram of times. */
export const SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/** Any other that the HTTP parser takes is one of them: clients without a token must not make series as they like. */
const METHODS: ReadonlySet<string> = new Set(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]);
const OTHER_METHOD = "OTHER";

interface Tally {
  readonly route: string;
  readonly method: string;
  readonly byStatus: Map<number, number>;
  readonly seconds: Buckets;
}

const REQUESTS = { name: "gokv_http_requests_total", help: "Answered requests." };
const DURATION = {
  name: "gokv_http_request_duration_seconds",
  help: "Time from the first byte of a request to its answer.",
};

export class RequestTally {
  readonly #tallies = new Map<string, Map<string, Tally>>();

  count(route: string, method: string, status: number, seconds: number): void {
    const tally = this.#tallies.get(route)?.get(method) ?? this.#tallyOf(route, method);
    tally.byStatus.set(status, (tally.byStatus.get(status) ?? 0) + 1);
    tally.seconds.observe(seconds);
  }

  register(registry: Registry): void {
    showFigure(registry, "counter", REQUESTS, () => this.#all().flatMap(requestValues));
    showFigure(registry, "histogram", DURATION, () =>
      this.#all().flatMap(({ route, method, seconds }) => seconds.values(DURATION.name, { route, method })),
    );
  }

  #tallyOf(route: string, method: string): Tally {
    if (METHODS.has(method)) return this.#add(route, method);
    return this.#tallies.get(route)?.get(OTHER_METHOD) ?? this.#add(route, OTHER_METHOD);
  }

  #add(route: string, method: string): Tally {
    const tally = { route, method, byStatus: new Map(), seconds: new Buckets(SECONDS) };
    const byMethod = this.#tallies.get(route) ?? new Map<string, Tally>();
    this.#tallies.set(route, byMethod.set(method, tally));
    return tally;
  }

  #all(): Tally[] {
    return [...this.#tallies.values()].flatMap((byMethod) => [...byMethod.values()]);
  }
}

function requestValues({ route, method, byStatus }: Tally): MetricValue<string>[] {
  return [...byStatus].map(([status, value]) => ({ labels: { route, method, status }, value }));
}
