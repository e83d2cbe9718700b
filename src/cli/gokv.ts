// The entry of the executable: sends threads, jwt-gen and gokv each to their own code and loads nothing else.

import { basename } from "node:path";
import { isMainThread } from "node:worker_threads";

if (!isMainThread) await import("../app/thread-entry.ts");
else {
  // Whatever the process creates is for its user alone. A thread cannot set this, so it comes before any thread.
  process.umask(0o077);
  await liftCapOfServer();
  const { runCli } = await import("./run-cli.ts");
  // A link named jwt-gen is the generator: the resolved path would not tell.
  const isJwtGen = basename(process.argv0) === "jwt-gen";
  const command = isJwtGen
    ? (await import("./jwt-gen-command.ts")).jwtGenCommand
    : (await import("./gokv-command.ts")).gokvCommand;
  process.exitCode = await runCli(isJwtGen ? "jwt-gen" : "gokv", command, process.argv.slice(2));
}

/** Before anything else is loaded: what comes before it is done twice. */
async function liftCapOfServer(): Promise<void> {
  const [command = "serve"] = process.argv.slice(2);
  if (command !== "serve") return;
  const [{ liftRequestCap }, { readUpstreamMax }] = await Promise.all([
    import("./lift-request-cap.ts"),
    import("../shared/settings.ts"),
  ]);
  const wanted = readUpstreamMax(process.env);
  // Its warning is given again by the command, which has a log.
  if (wanted !== null) liftRequestCap(wanted, process.env);
}
