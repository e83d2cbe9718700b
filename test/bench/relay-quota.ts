// What a finite quota costs each request, counted in group commits on a disk whose every sync is slow.

import { slowSync } from "./bench-server.ts";
import { type Bench, type Benchmark, sized } from "./benchmark.ts";
import { type ChatServer, chatRequest } from "./chat-request.ts";
import { type Figure, InvalidRun, percentile, ratioAtMost, reported } from "./figures.ts";
import { LightConnection } from "./light-connection.ts";
import { startQuickUpstream } from "./quick-upstream.ts";
import { startRelay } from "./relay-bench-server.ts";
import { type FixedRequest, fixedRequest } from "./request-stream.ts";

const SYNC_DELAY_MS = 5;
const WARM_UP = 10;
/** The settlement of a request is stored after its answer, and must not hold the next one up. */
const PAUSE_MS = 15;

async function opened(url: string, post: FixedRequest): Promise<() => Promise<number>> {
  const connection = await LightConnection.open(url);
  const request = fixedRequest(post);
  return async () => {
    const startMs = performance.now();
    const { status } = await connection.ask(request);
    if (status !== 200) throw new InvalidRun(`${post.path} answers ${status}`);
    return performance.now() - startMs;
  };
}

async function run(bench: Bench): Promise<Figure[]> {
  await using upstream = await startQuickUpstream();
  const wrapper = slowSync(SYNC_DELAY_MS, bench.newPath());
  await using gokv = await startRelay(bench, upstream, { wrapper });
  const plan = { delayMs: 0, events: 0, everyMs: 0 };
  const chat = (server: ChatServer) => opened(server.url, chatRequest(server, plan));
  const write = { path: "/bucket/key", headers: { Authorization: `Bearer ${bench.token}` }, body: "x" };
  const asks = await Promise.all([chat(gokv), chat(gokv.finite), opened(gokv.url, write)]);
  const times = asks.map((): number[] => []);
  const rounds = sized(bench, 300, 40);
  for (let round = -WARM_UP; round < rounds; round++) {
    for (const [index, ask] of asks.entries()) {
      const tookMs = await ask();
      await Bun.sleep(PAUSE_MS);
      if (round >= 0) times[index]!.push(tookMs);
    }
  }
  const [unlimited, finite, commit] = times.map((own) => percentile(own, 0.5)) as [number, number, number];
  if (commit < SYNC_DELAY_MS) throw new InvalidRun(`a write took ${commit} ms: no sync was slow`);
  await gokv.requireLogged(2 * rounds);
  const addedMs = finite - unlimited;
  return [
    {
      name: "relay: added by a finite quota, p50, beside a commit",
      unit: "ms",
      measured: addedMs,
      floor: commit,
      ratio: addedMs / commit,
      target: ratioAtMost(2),
    },
    reported({ name: "  the whole of it, beside an unlimited one", unit: "ms", measured: finite, floor: unlimited }),
  ];
}

export const RELAY_QUOTA: Benchmark = {
  name: "relay-quota",
  missing: () => (Bun.which("strace") === null ? "strace, which slows syncs down" : null),
  run,
};
