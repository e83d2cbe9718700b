// The container image, built and run for real by scripts/image-check.ts; in a full run, on a machine that can.

import { expect, test } from "bun:test";
import { join } from "node:path";
import { ROOT } from "../support/executable.ts";
import { has, hasProgram, isRoot } from "../support/needs.ts";
import { report } from "../support/run-size.ts";

const CHECK_MS_MAX = 600_000;
const PROGRAMS = ["apt-get", "buildah", "dpkg-deb", "nsenter", "runc"];

if (
  has("GOKV_FULL=1 to build and run the container image", process.env.GOKV_FULL === "1") &&
  has("root, for the container image", isRoot()) &&
  has(`${PROGRAMS.join(", ")}, for the container image`, PROGRAMS.every(hasProgram))
) {
  test(
    "the image is small, has no shell, runs read-only without rights, serves, stops and keeps its data",
    async () => {
      const check = Bun.spawn([process.execPath, join(ROOT, "scripts/image-check.ts")], {
        stdin: "ignore",
        stdout: "pipe",
        stderr: "pipe",
        // It cleans up after itself when it is asked to end.
        timeout: CHECK_MS_MAX - 20_000,
        killSignal: "SIGTERM",
      });
      const [output, problems, exitCode] = await Promise.all([
        new Response(check.stdout).text(),
        new Response(check.stderr).text(),
        check.exited,
      ]);
      if (exitCode !== 0) throw new Error(`image-check ended with ${exitCode}:\n${output}${problems}`);
      const figure = /^figure: (.*)$/m.exec(output)?.[1];
      expect(figure).toStartWith("image ");
      report(figure!);
    },
    CHECK_MS_MAX,
  );
}
