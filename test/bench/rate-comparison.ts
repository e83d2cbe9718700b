// Two loads that take turns, so that the rate of one can be told as a share of the other's.

import { type Bench, sized } from "./benchmark.ts";
import { type Figure, median, type Target } from "./figures.ts";
import { runClosedLoop } from "./load-generator.ts";
import type { FixedRequest, RequestStream } from "./request-stream.ts";

export interface RateComparison {
  readonly bench: Bench;
  readonly name: string;
  readonly connections: number;
  /** Counted rounds, when the run is not short; the one before them warms both up. */
  readonly rounds: number;
  /** Of a counted round, when the run is not short. */
  readonly seconds: number;
  floor(round: number): ServerLoad;
  measured(round: number): ServerLoad;
  readonly target: Target | null;
}

export interface ServerLoad {
  readonly url: string;
  readonly stream: RequestStream | FixedRequest;
}

const SHORT_SECONDS = 1;
const SHORT_ROUNDS = 3;

/** The ratio is the median of the rounds' own ratios, so that a slow moment meets both. */
export async function compareRates(comparison: RateComparison): Promise<Figure> {
  const { bench, name, connections, target } = comparison;
  const rounds = sized(bench, comparison.rounds, SHORT_ROUNDS);
  const seconds = sized(bench, comparison.seconds, SHORT_SECONDS);
  const rates: { floor: number; measured: number }[] = [];
  const measure = async (round: number, length: number) => {
    const floor = await runClosedLoop({ ...comparison.floor(round), connections, seconds: length });
    const measured = await runClosedLoop({ ...comparison.measured(round), connections, seconds: length });
    return { floor: floor.perSecond, measured: measured.perSecond };
  };
  await measure(0, SHORT_SECONDS);
  for (let round = 1; round <= rounds; round++) rates.push(await measure(round, seconds));
  return {
    name: `${name}, ${connections} ${connections === 1 ? "connection" : "connections"}`,
    unit: "/s",
    measured: median(rates.map(({ measured }) => measured)),
    floor: median(rates.map(({ floor }) => floor)),
    ratio: median(rates.map(({ floor, measured }) => measured / floor)),
    target,
  };
}
