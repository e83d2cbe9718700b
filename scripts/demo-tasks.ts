// The third act: a team of 50 with 10 000 tasks made of real text. Random changes from many clients are compared with a
// model, the server is killed again and again meanwhile, and reminders and webhooks are counted at a receiver.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Bar, each, type Server, start } from "./demo-support.ts";
import { Team } from "./demo-team.ts";
import { HookReceiver } from "./hook-receiver.ts";

const USERS = 50;
const TASKS = 10_000;
const CHANGES = 6_000;
const REMINDERS = 200;
const HOOKS = 10;
const KILLS = 6;
const LINE_LENGTH_MIN = 12;
const LINE_LENGTH_MAX = 200;
const REMIND_IN_MS = 5_000;
const REMINDERS_WAIT_MS = 120_000;
const TEXTS = /(^|\/)(LICENSE|LICENCE|README|CHANGELOG)[^/]*$/i;

const SETTINGS = {
  TASK_RATE_PER_MINUTE: "0",
  TASK_RATE_LOGIN: "0/1m",
  TASK_RATE_REGISTER: "0/1h",
  // The people of the demo are many and their passwords worth nothing.
  PASSWORD_MEMORY_KIB: "8192",
  PASSWORD_TIME: "1",
  WEBHOOK_ALLOW_CIDRS: "127.0.0.1/32",
  JOBS_LEASE: "3s",
  TASK_ACCESS_TTL: "2h",
};

/** Lines that people wrote, those in Chinese first, so that they are among the tasks however few there are. */
function collectLines(folder: string): string[] {
  const lines = new Set<string>();
  for (const path of [...new Bun.Glob("**/*").scanSync({ cwd: folder, dot: true })].filter((name) =>
    TEXTS.test(name),
  )) {
    for (const line of readFileSync(join(folder, path), "utf8").split("\n")) {
      const text = line.replaceAll(/\s+/g, " ").trim();
      const isWhole = text.length >= LINE_LENGTH_MIN && text.length <= LINE_LENGTH_MAX && text.isWellFormed();
      if (isWhole && !text.includes("\0") && !text.includes("\ufffd")) lines.add(text);
    }
  }
  const all = [...lines].sort();
  const isChinese = (line: string) => /\p{Script=Han}/u.test(line);
  return [...all.filter(isChinese), ...all.filter((line) => !isChinese(line))];
}

/** Kills the server and starts it on the same data, at even distances of what is done. */
class Restarts {
  readonly #dbPath: string;
  readonly #team: Team;
  #server: Server;
  kills = 0;

  constructor(dbPath: string, server: Server, team: Team) {
    this.#dbPath = dbPath;
    this.#server = server;
    this.#team = team;
  }

  async kill(): Promise<void> {
    this.kills++;
    const back = Promise.withResolvers<string>();
    this.#team.url = back.promise;
    await this.#server.kill("SIGKILL");
    this.#server = await start(this.#dbPath, SETTINGS);
    back.resolve(this.#server.url);
  }

  stop(): Promise<void> {
    return this.#server.kill("SIGTERM");
  }
}

/** Runs `work` on each item, killing the server `kills` times in between. */
async function withKills<T>(label: string, items: readonly T[], restarts: Restarts, work: (item: T) => Promise<void>) {
  const bar = new Bar(label, "steps", items.length, 0);
  const everyItems = Math.ceil(items.length / (KILLS / 2 + 1));
  let done = 0;
  let killing: Promise<void> = Promise.resolve();
  await each(items, async (item) => {
    await work(item);
    bar.draw(++done, 0);
    if (done % everyItems === 0 && done < items.length) killing = restarts.kill();
  });
  await killing;
  return bar.end();
}

/** True when nothing was lost, nothing stands twice, and nobody saw what is not theirs. */
export async function tasksAct(folder: string): Promise<boolean> {
  const lines = collectLines(folder);
  const scratch = mkdtempSync(join(tmpdir(), "gokv-demo-"));
  using receiver = new HookReceiver();
  try {
    const dbPath = join(scratch, "data");
    const server = await start(dbPath, SETTINGS);
    const team = new Team(Promise.resolve(server.url), lines);
    const restarts = new Restarts(dbPath, server, team);
    await each(range(USERS), (index) => team.join(index));
    await each(range(HOOKS), (index) => team.listen(index, receiver));
    const createdS = await withKills("tasks", range(TASKS), restarts, (index) => team.create(index));
    const changedS = await withKills("changes", range(CHANGES), restarts, (index) => team.change(index));
    await each(range(REMINDERS), (index) => team.remind(index % HOOKS, REMIND_IN_MS));
    await restarts.kill();
    const reminded = await receiver.waitFor("task.reminder", team.reminders, REMINDERS_WAIT_MS);
    await each(range(USERS), (index) => team.compare(index));
    await restarts.stop();
    const { lost, twice } = reminded;
    console.log(
      `figure: ${USERS} people, ${TASKS} tasks in ${createdS.toFixed(1)} s, ${CHANGES} changes in ` +
        `${changedS.toFixed(1)} s, ${restarts.kills} kills, ${team.retried} requests sent again`,
    );
    console.log(
      `figure: ${team.reminders.size} reminders by webhook, ${lost} lost, ${twice} twice; ${receiver.received} ` +
        `deliveries, ${receiver.repeated} of them again, ${receiver.forged} with a wrong signature`,
    );
    console.log(`figure: ${team.compared} tasks compared, surprises ${team.surprises.length}`);
    for (const surprise of team.surprises.slice(0, 10)) console.log(`  ${surprise}`);
    return team.surprises.length === 0 && lost === 0 && twice === 0 && receiver.forged === 0;
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

function range(length: number): number[] {
  return Array.from({ length }, (_, index) => index);
}
