// Counters and histograms for what every request counts: an addition each, shown to prom-client when somebody scrapes.
// Its own hash their labels on each call, which would cost a request of the relay several microseconds.

import type { MetricType, MetricValue, Registry } from "prom-client";

type Labels = Readonly<Record<string, string | number>>;
type Value = MetricValue<string> & { metricName?: string };

/** What it is called, and the names of its labels. */
interface FigureName {
  readonly name: string;
  readonly help: string;
  readonly labelNames?: readonly string[];
}

/** How many observations fell below each bound. */
export class Buckets {
  readonly #bounds: readonly number[];
  /** Not cumulative; the last one holds those above all bounds. */
  readonly #counts: Float64Array;
  #sum = 0;

  constructor(bounds: readonly number[]) {
    this.#bounds = bounds;
    this.#counts = new Float64Array(bounds.length + 1);
  }

  observe(value: number): void {
    const bounds = this.#bounds;
    let bucket = 0;
    while (bucket < bounds.length && value > bounds[bucket]!) bucket++;
    this.#counts[bucket]!++;
    this.#sum += value;
  }

  /** The lines of a histogram, cumulative. */
  values(name: string, labels: Labels): Value[] {
    let total = 0;
    const cumulative = [...this.#bounds, "+Inf"].map((le, index) => {
      total += this.#counts[index]!;
      return { labels: { ...labels, le }, value: total, metricName: `${name}_bucket` };
    });
    return [
      ...cumulative,
      { labels, value: this.#sum, metricName: `${name}_sum` },
      { labels, value: total, metricName: `${name}_count` },
    ];
  }
}

/** The values of the labels are given as one text, with a comma between two: none of them may hold one. */
export class HotCounter {
  readonly #counts = new Map<string, number>();

  constructor(registry: Registry, figure: FigureName) {
    showFigure(registry, "counter", figure, () =>
      [...this.#counts].map(([values, value]) => ({ labels: labelsOf(figure, values), value })),
    );
  }

  add(values: string, count = 1): void {
    this.#counts.set(values, (this.#counts.get(values) ?? 0) + count);
  }
}

/** As with a HotCounter; without labels it is shown from the start. */
export class HotHistogram {
  readonly #bounds: readonly number[];
  readonly #all = new Map<string, Buckets>();

  constructor(registry: Registry, figure: FigureName & { readonly bounds: readonly number[] }) {
    this.#bounds = figure.bounds;
    if (figure.labelNames === undefined) this.#add("");
    showFigure(registry, "histogram", figure, () =>
      [...this.#all].flatMap(([values, buckets]) => buckets.values(figure.name, labelsOf(figure, values))),
    );
  }

  observe(seconds: number, values = ""): void {
    (this.#all.get(values) ?? this.#add(values)).observe(seconds);
  }

  #add(values: string): Buckets {
    const buckets = new Buckets(this.#bounds);
    this.#all.set(values, buckets);
    return buckets;
  }
}

/** Has prom-client show what `read` gives, as it is when somebody scrapes. */
export function showFigure(
  registry: Registry,
  type: `${MetricType}`,
  { name, help }: FigureName,
  read: () => Value[],
): void {
  registry.registerMetric({ name, help, type, get: async () => ({ name, help, type, values: read() }) } as never);
}

function labelsOf({ labelNames = [] }: FigureName, values: string): Labels {
  const given = values.split(",");
  return Object.fromEntries(labelNames.map((name, index) => [name, given[index]!]));
}
