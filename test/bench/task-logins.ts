// What logins cost the others: passwords are hashed off the event loop, on the cores that everybody shares.

import { ask, createTask, signUp } from "../support/task-client.ts";
import { startBenchServer } from "./bench-server.ts";
import type { Benchmark } from "./benchmark.ts";
import { atMost, InvalidRun, percentile, reported } from "./figures.ts";
import { taskTarget } from "./task-user.ts";

const LOGINS = 50;
const WARM_UP = 200;
const PAUSE_MS = 1;
/** Passwords cost what they cost in production; only the limits are off. */
const SETTINGS = { TASK_RATE_PER_MINUTE: "0", TASK_RATE_LOGIN: "0/1m", TASK_RATE_REGISTER: "0/1h" };

const logins: Benchmark = {
  name: "task-logins",
  async run(bench) {
    await using server = await startBenchServer(bench.newPath(), SETTINGS);
    const target = taskTarget(server.url);
    const owner = await signUp(target);
    const { id } = await createTask(target, owner);
    // Not compared with any document, which would cost this process more than the request.
    const read = async () => {
      const startMs = performance.now();
      const answer = await fetch(`${server.url}/api/v1/tasks/${id}`, {
        headers: { Authorization: `Bearer ${owner.token}` },
      });
      await answer.text();
      if (answer.status !== 200) throw new InvalidRun(`a read answers ${answer.status}`);
      return performance.now() - startMs;
    };
    for (let reads = 0; reads < WARM_UP; reads++) await read();
    const { email, password } = owner;
    let isOver = false;
    const all = Array.from({ length: LOGINS }, () => ask(target, "POST", "/auth/login", { body: { email, password } }));
    const statuses = Promise.all(all).then((answers) => {
      isOver = true;
      return answers.map(({ status }) => status);
    });
    const readMs: number[] = [];
    while (!isOver) {
      readMs.push(await read());
      await Bun.sleep(PAUSE_MS);
    }
    const odd = (await statuses).filter((status) => status !== 200 && status !== 503);
    if (odd.length > 0) throw new InvalidRun(`logins are answered with ${odd.join(", ")}`);
    const name = `GET of a task during ${LOGINS} logins at once, p99`;
    return [
      atMost(10, { name, unit: "ms", measured: percentile(readMs, 0.99) }),
      reported({ name: "  such a GET, median", unit: "ms", measured: percentile(readMs, 0.5) }),
    ];
  },
};

export const TASK_LOGINS: readonly Benchmark[] = [logins];
