// Counts answered requests on the hot path with a few additions, and shows them to prom-client when somebody scrapes.
// prom-client's own counters hash their labels on every call, which would cost a tenth of a read.

import type { MetricType, MetricValue, Registry } from "prom-client";

/** Bounds of the buckets of every histogram of times. */
export const SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

interface Tally {
  readonly route: string;
  readonly method: string;
  readonly byStatus: Map<number, number>;
  /** Requests per bucket of SECONDS, not cumulative; the last one holds those above all bounds. */
  readonly buckets: Float64Array;
  sumSeconds: number;
}

export class RequestTally {
  readonly #tallies = new Map<string, Map<string, Tally>>();

  count(route: string, method: string, status: number, seconds: number): void {
    const tally = this.#tallies.get(route)?.get(method) ?? this.#add(route, method);
    tally.byStatus.set(status, (tally.byStatus.get(status) ?? 0) + 1);
    let bucket = 0;
    while (bucket < SECONDS.length && seconds > SECONDS[bucket]!) bucket++;
    tally.buckets[bucket]!++;
    tally.sumSeconds += seconds;
  }

  register(registry: Registry): void {
    const add = (name: string, help: string, type: `${MetricType}`, get: () => MetricValue<string>[]) =>
      registry.registerMetric({ name, help, type, get: async () => ({ name, help, type, values: get() }) } as never);
    add("gokv_http_requests_total", "Answered requests.", "counter", () => this.#all().flatMap(requestValues));
    add("gokv_http_request_duration_seconds", "Time from the first byte of a request to its answer.", "histogram", () =>
      this.#all().flatMap(durationValues),
    );
  }

  #add(route: string, method: string): Tally {
    const tally = { route, method, byStatus: new Map(), buckets: new Float64Array(SECONDS.length + 1), sumSeconds: 0 };
    const byMethod = this.#tallies.get(route) ?? new Map<string, Tally>();
    this.#tallies.set(route, byMethod.set(method, tally));
    return tally;
  }

  #all(): Tally[] {
    return [...this.#tallies.values()].flatMap((byMethod) => [...byMethod.values()]);
  }
}

type Value = MetricValue<string> & { metricName?: string };

function requestValues({ route, method, byStatus }: Tally): Value[] {
  return [...byStatus].map(([status, value]) => ({ labels: { route, method, status }, value }));
}

function durationValues({ route, method, buckets, sumSeconds }: Tally): Value[] {
  const metricName = "gokv_http_request_duration_seconds";
  let total = 0;
  const cumulative = [...SECONDS, "+Inf"].map((le, index) => {
    total += buckets[index]!;
    return { labels: { route, method, le }, value: total, metricName: `${metricName}_bucket` };
  });
  return [
    ...cumulative,
    { labels: { route, method }, value: sumSeconds, metricName: `${metricName}_sum` },
    { labels: { route, method }, value: total, metricName: `${metricName}_count` },
  ];
}
