// Somebody deletes or replaces the files of a running store: the server stops itself before more writes are lost.

import { describe, expect, test } from "bun:test";
import { copyFileSync, renameSync, unlinkSync, writeFileSync } from "node:fs";
import { EXIT } from "../../src/shared/errors.ts";
import { startServer } from "../support/executable.ts";
import { expectTime } from "../support/figures-in-bounds.ts";
import { mint, SECRET } from "../support/targets.ts";
import { tempDir } from "../support/temp-dir.ts";

/** Copied beside it and moved over it, as a backup tool or an editor would. */
function replace(path: string): void {
  copyFileSync(path, `${path}.copy`);
  renameSync(`${path}.copy`, path);
}

const CASES = [
  ["gokv.db", "deleted", unlinkSync],
  ["gokv.db", "replaced", replace],
  ["gokv.db-wal", "deleted", unlinkSync],
  ["gokv.db-wal", "replaced", replace],
  ["lock.db", "deleted", unlinkSync],
  ["lock.db", "replaced", replace],
] as const;
const STOP_MS_MAX = 1_000;

describe("a running server", () => {
  for (const [name, what, change] of CASES) {
    test(`stops itself within a second when ${name} is ${what}`, async () => {
      using dir = tempDir();
      await using server = await startServer({ JWT_SECRET: SECRET, DB_PATH: dir.file("data") });
      const headers = { Authorization: `Bearer ${await mint()}` };
      const put = () => fetch(`${server.url}/b/k`, { method: "POST", headers, body: "v" });
      expect((await put()).status).toBe(200);
      const startMs = performance.now();
      change(dir.file("data", name));
      expect(await server.exited).toBe(EXIT.storageFailed);
      expectTime("stopping", performance.now() - startMs, STOP_MS_MAX);
      expect(server.log()).toMatch(new RegExp(`"level":"fatal".*${name} was deleted or replaced`));
    });
  }

  test("stops itself likewise when a file stands where its folder was, and logs nothing but lines", async () => {
    using dir = tempDir();
    await using server = await startServer({ JWT_SECRET: SECRET, DB_PATH: dir.file("data") });
    renameSync(dir.file("data"), dir.file("moved"));
    writeFileSync(dir.file("data"), "");
    expect(await server.exited).toBe(EXIT.storageFailed);
    const lines = server.log().trimEnd().split("\n");
    expect(lines.filter((line) => !line.startsWith("{"))).toEqual([]);
    expect(lines.at(-1)).toContain('"level":"fatal"');
  });

  test("goes on when nothing of the store is touched", async () => {
    using dir = tempDir();
    await using server = await startServer({ JWT_SECRET: SECRET, DB_PATH: dir.file("data") });
    await Bun.write(dir.file("data", "a-file-of-somebody-else"), "x");
    unlinkSync(dir.file("data", "a-file-of-somebody-else"));
    // Two looks of the watch.
    const ended = await Promise.race([server.exited, Bun.sleep(STOP_MS_MAX + 200).then(() => "up")]);
    expect(ended).toBe("up");
  });
});
