// What a start says of entries whose bucket got a name that belongs to a service now.

import { expect, test } from "bun:test";
import type { Log, LogProperties } from "../../src/shared/log.ts";
import { QUIET } from "../support/job-rig.ts";
import { expectError, put, read } from "../support/kv-requests.ts";
import { openInProcess, openInProcessTelling } from "../support/targets.ts";
import { tempDir } from "../support/temp-dir.ts";

const NAMES = ["api", "kv", "v1"];

test("a start warns of each bucket whose name has become that of a service, and keeps its entries", async () => {
  using dir = tempDir();
  const alone = { DB_PATH: dir.file("data"), SERVICES: "kv" };
  {
    await using target = await openInProcess(alone);
    for (const bucket of [...NAMES, "api2", "v", "plain"]) await put(target, `/${bucket}/k`, bucket);
  }
  const warnings: (readonly [message: string, properties: LogProperties | undefined])[] = [];
  const log: Log = { ...QUIET, warn: (message, properties) => void warnings.push([message, properties]) };
  {
    await using target = await openInProcessTelling(log)({ ...alone, SERVICES: "kv,token,relay,task" });
    const message = "a bucket has a name that is reserved now; its entries are kept but cannot be reached";
    expect(warnings).toEqual(NAMES.map((bucket) => [message, { bucket }]));
    await expectError(await target.fetch("/api/k"), "bucket_reserved");
  }
  warnings.length = 0;
  await using target = await openInProcessTelling(log)(alone);
  expect(warnings).toEqual([]);
  for (const bucket of NAMES) expect(await read(target, `/${bucket}/k`)).toBe(bucket);
});
