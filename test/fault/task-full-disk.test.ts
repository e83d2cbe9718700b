// A volume that is full, as the users of the task service meet it.

import { expect, test } from "bun:test";
import { join } from "node:path";
import { eventually } from "../support/eventually.ts";
import { startServer } from "../support/executable.ts";
import { has, isRoot } from "../support/needs.ts";
import { mountSmallVolume } from "../support/small-volume.ts";
import { SECRET } from "../support/targets.ts";
import { ask, createTask, signUp, UNLIMITED } from "../support/task-client.ts";
import { operatorAt } from "../support/token-client.ts";

const MiB = 1024 * 1024;
const BALLAST = 6;
const TASKS_MAX = 5_000;
const TIMEOUT_MS = 240_000;

if (has("root, to mount a small volume", isRoot())) {
  test(
    "on a full volume tasks are read and deleted, nothing else is stored, and all of it goes on when there is room",
    async () => {
      using volume = mountSmallVolume(32 * MiB);
      const settings = { JWT_SECRET: SECRET, DB_PATH: join(volume.path, "data"), ...UNLIMITED };
      await using server = await startServer(settings);
      const target = await operatorAt(server.url);
      const { token } = await signUp(target);
      for (let n = 0; n < BALLAST; n++) {
        const body = crypto.getRandomValues(new Uint8Array(MiB - n));
        expect((await target.fetch(`/ballast/${n}`, { method: "PUT", body })).status).toBe(200);
      }
      const ids = [(await createTask(target, { token })).id];
      const description = "满".repeat(6_000);
      const create = () => ask(target, "POST", "/tasks", { token, body: { title: "one more", description } });
      let refused = await create();
      for (let n = 0; n < TASKS_MAX && refused.status === 201; n++) {
        ids.push(((await refused.json()) as { id: number }).id);
        refused = await create();
      }
      expect([refused.status, await refused.json()]).toMatchObject([507, { code: "storage_full" }]);
      for (const id of ids.slice(0, 40)) {
        expect([id, (await ask(target, "GET", `/tasks/${id}`, { token })).status]).toEqual([id, 200]);
        expect([id, (await ask(target, "DELETE", `/tasks/${id}`, { token })).status]).toEqual([id, 200]);
      }
      expect((await create()).status).toBe(507);
      for (let n = 0; n < BALLAST; n++) await target.fetch(`/ballast/${n}`, { method: "DELETE" });
      await eventually("tasks are made again", 10_000, async () => (await create()).status === 201);
      const isFull = async () => /^gokv_storage_full 1$/m.test(await (await target.fetch("/metrics")).text());
      await eventually("the store is no longer full", 10_000, async () => !(await isFull()));
      expect((await ask(target, "GET", `/tasks/${ids.at(-1)}`, { token })).status).toBe(200);
    },
    TIMEOUT_MS,
  );
}
