// The main job on real input, in acts; each starts a server of its own. Exit 0 when nothing was lost and every answer
// was the expected one.
//
//   bun scripts/demo.ts [files|tokens|tasks] [FOLDER]

import { join } from "node:path";
import { filesAct } from "./demo-files.ts";
import { ROOT } from "./demo-support.ts";
import { tasksAct } from "./demo-tasks.ts";
import { tokensAct } from "./demo-tokens.ts";

const ACTS: Readonly<Record<string, (folder: string) => Promise<boolean>>> = {
  files: filesAct,
  tokens: tokensAct,
  tasks: tasksAct,
};

const [asked, folder = join(ROOT, "node_modules")] = process.argv.slice(2);
if (asked !== undefined && !Object.hasOwn(ACTS, asked)) {
  console.error(`the demo has these acts: ${Object.keys(ACTS).join(", ")}`);
  process.exit(2);
}
for (const [name, act] of Object.entries(ACTS)) {
  if (asked !== undefined && asked !== name) continue;
  console.log(`${name}:`);
  if (!(await act(folder))) process.exitCode = 1;
}
