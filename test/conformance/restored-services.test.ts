// What clients still hold of a store that was lost, against a backup of it that was restored: nothing of it fits.

import { Database } from "bun:sqlite";
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { GOKV, run, startServer, stop } from "../support/executable.ts";
import { LiveStream } from "../support/live-stream.ts";
import { SECRET } from "../support/targets.ts";
import { send, sendOk } from "../support/task-answers.ts";
import { type Account, ask, createTask, signUp, UNLIMITED } from "../support/task-client.ts";
import { type TempDir, tempDir } from "../support/temp-dir.ts";

// Many processes are started; on a busy machine that takes its time.
setDefaultTimeout(120_000);

/** Of an integer in a calendar (RFC 5545, section 3.3.8). */
const CALENDAR_INTEGER_MAX = 2 ** 31 - 1;
const READS = ["/tasks", "/labels", "/tasks?status=pending&sort=due_date"];

let dir: TempDir;
beforeEach(() => {
  dir = tempDir();
});
afterEach(() => dir[Symbol.dispose]());

interface Asked {
  fetch(
    path: string,
    init?: Omit<RequestInit, "headers"> & { headers?: Record<string, string | null> },
  ): Promise<Response>;
}

/** Runs `act` against a server on `data` that lives no longer than that. */
async function whileServing<T>(data: string, act: (target: Asked) => Promise<T>): Promise<T> {
  await using server = await startServer({ JWT_SECRET: SECRET, DB_PATH: dir.file(data), ...UNLIMITED });
  const result = await act({
    fetch(path, { headers = {}, ...init } = {}) {
      const given = Object.entries(headers).filter((entry): entry is [string, string] => entry[1] !== null);
      return fetch(`${server.url}${path}`, { ...init, headers: given });
    },
  });
  await stop(server);
  return result;
}

/** A command of gokv on the data directory `data`; returns what it says. */
async function gokv(args: readonly string[], data: string): Promise<string> {
  const finished = await run([GOKV, ...args], { env: { DB_PATH: dir.file(data) }, cwd: dir.path });
  expect(finished).toMatchObject({ exitCode: 0, stderr: "" });
  return finished.stdout;
}

/** A user with a task, and one who never had any; the backup is b.db. */
async function backUp(): Promise<{ ann: Account; bob: Account; taskId: number }> {
  const people = await whileServing("data", async (target) => {
    const [ann, bob] = [await signUp(target), await signUp(target)];
    return { ann, bob, taskId: (await createTask(target, ann, { labels: ["kept"] })).id };
  });
  await gokv(["backup", "b.db"], "data");
  return people;
}

const tagOf = async (target: Asked, { token }: Account, path: string) =>
  (await ask(target, "GET", path, { token })).headers.get("etag")!;

/** What the server then gives out: entity tags by path, ids, and how far live streams have come. */
async function useStore(target: Asked, people: Awaited<ReturnType<typeof backUp>>, title: string) {
  const { ann, bob, taskId } = people;
  await sendOk(target, ann, "PATCH", `/tasks/${taskId}`, { title, labels: ["kept", title] });
  const task = await createTask(target, ann, { title });
  await createTask(target, bob, { title, labels: [title] });
  const comment = await send<{ id: number }>(target, ann, "POST", `/tasks/${taskId}/comments`, { body: title });
  const { id: userId } = await signUp(target);
  const history = await sendOk<{ id: number }[]>(target, ann, "GET", `/tasks/${taskId}/events`);
  const tags = async (who: Account, paths: readonly string[]) =>
    Promise.all(paths.map(async (path) => ({ who, path, tag: await tagOf(target, who, path) })));
  await using stream = await LiveStream.open(target, ann);
  await using bobsStream = await LiveStream.open(target, bob);
  return {
    tags: [...(await tags(ann, [`/tasks/${taskId}`, ...READS])), ...(await tags(bob, READS))],
    ids: { task: task.id, comment: comment.body.id, user: userId, event: Math.max(...history.map(({ id }) => id)) },
    revs: [
      { who: ann, rev: stream.lastId! },
      { who: bob, rev: bobsStream.lastId! },
    ],
  };
}

/** Where each live stream that comes back with `rev` begins, and what it says next. */
async function resume(target: Asked, who: Account, rev: number): Promise<string[]> {
  await using stream = await LiveStream.open(target, who, rev);
  const first = await stream.next();
  await createTask(target, who);
  return [first.type, (await stream.next()).type];
}

describe("after a restore", () => {
  for (const place of ["data", "elsewhere"]) {
    const where = place === "data" ? "in the place of the lost store" : "where no store was";
    test(`${where}, no entity tag, id or place in a stream of the lost store means anything else`, async () => {
      const people = await backUp();
      const { ann, taskId } = people;
      const lost = await whileServing("data", (target) => useStore(target, people, "lost"));
      await gokv(["restore", "b.db"], place);
      await whileServing(place, async (target) => {
        // The same steps: counted from the backup on, all numbers would be those of the lost store.
        const now = await useStore(target, people, "another");
        for (const { who, path, tag } of lost.tags) {
          const { status } = await ask(target, "GET", path, { token: who.token, headers: { "If-None-Match": tag } });
          expect([path, status]).toEqual([path, 200]);
        }
        const headers = { "If-Match": lost.tags[0]!.tag };
        for (const [method, body] of [["PATCH", { title: "over" }] as const, ["DELETE"] as const]) {
          const refused = await send<{ code: string }>(target, ann, method, `/tasks/${taskId}`, body, headers);
          expect([refused.status, refused.body.code]).toEqual([412, "version_mismatch"]);
        }
        expect((await sendOk(target, ann, "GET", `/tasks/${taskId}`)).title).toBe("another");
        for (const [what, id] of Object.entries(lost.ids)) {
          expect([what, now.ids[what as keyof typeof now.ids] > id + 900_000]).toEqual([what, true]);
        }
        for (const { who, rev } of lost.revs) {
          for (const known of [0, rev - 1, rev]) {
            expect([known, await resume(target, who, known)]).toEqual([known, ["reset", "task.created"]]);
          }
        }
      });
      expect(await gokv(["check"], place)).toStartWith("sound: ");
    });
  }

  test("of one backup over and over, each store goes on from numbers of its own that calendars take", async () => {
    const people = await backUp();
    const given = new Set<string>();
    for (let turn = 1; turn <= 4; turn++) {
      await gokv(["restore", "b.db"], "data");
      await whileServing("data", async (target) => {
        const { tags, ids, revs } = await useStore(target, people, "again");
        for (const { path, who, tag } of tags) given.add(`${who.id} ${path} ${tag}`);
        for (const [what, id] of Object.entries(ids)) given.add(`${what} ${id}`);
        for (const { who, rev } of revs) given.add(`${who.id} ${rev}`);
        expect(given.size).toBe(turn * (tags.length + Object.keys(ids).length + revs.length));
        const calendar = await (await ask(target, "GET", "/tasks/export.ics", { token: people.ann.token })).text();
        const sequences = [...calendar.matchAll(/^SEQUENCE:(\d+)\r$/gm)].map(([, digits]) => Number(digits));
        expect(sequences).toHaveLength(2);
        expect(Math.max(...sequences)).toBeLessThanOrEqual(CALENDAR_INTEGER_MAX);
      });
      expect(await gokv(["check"], "data")).toStartWith("sound: ");
    }
  });

  test("ids leap in tables too that had no rows at the backup", async () => {
    await whileServing("data", async () => undefined);
    await gokv(["backup", "b.db"], "data");
    await gokv(["restore", "b.db"], "data");
    using database = new Database(dir.file("data", "gokv.db"), { readonly: true });
    const tables = database.query<{ name: string; seq: number }, []>("SELECT name, seq FROM sqlite_sequence").all();
    const names = ["relay_channel", "relay_token", "task_comment", "task_event", "task_item", "task_user"];
    expect(tables.map(({ name }) => name).sort()).toEqual(names);
    expect(Math.min(...tables.map(({ seq }) => seq))).toBe(1_000_000);
  });
});
