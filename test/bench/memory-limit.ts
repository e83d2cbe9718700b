// A bound on the memory of one process, set by the kernel: over it the process is killed.

import { accessSync, constants, existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** Version 1 mounts a tree per controller, version 2 one for all of them. */
const TREES = [
  { root: "/sys/fs/cgroup/memory", limitFile: "memory.limit_in_bytes" },
  { root: "/sys/fs/cgroup", limitFile: "memory.max" },
];

export interface MemoryLimit extends Disposable {
  /** The command to put in front of the program: it enters the group, then becomes the program. */
  readonly wrapper: readonly string[];
}

/** Null when this process may not make such groups: without root, or where the controller is not there. */
export function memoryLimit(bytes: number): MemoryLimit | null {
  const tree = TREES.find(({ root }) => isUsable(root));
  if (tree === undefined) return null;
  const group = join(tree.root, `gokv-bench-${process.pid}`);
  mkdirSync(group);
  const remove = () => rmdirSync(group);
  if (!existsSync(join(group, tree.limitFile))) {
    remove();
    return null;
  }
  writeFileSync(join(group, tree.limitFile), `${bytes}`);
  return {
    wrapper: ["sh", "-c", 'echo $$ > "$0" && exec "$@"', join(group, "cgroup.procs")],
    [Symbol.dispose]: remove,
  };
}

/** A tree of version 2 gives its groups a memory controller only when it says so. */
function isUsable(root: string): boolean {
  try {
    accessSync(root, constants.W_OK);
    const controllers = join(root, "cgroup.subtree_control");
    if (existsSync(controllers)) return readFileSync(controllers, "utf8").includes("memory");
    return existsSync(join(root, "memory.limit_in_bytes"));
  } catch {
    return false;
  }
}
