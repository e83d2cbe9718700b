// A volume of a few megabytes that a test can fill. Needs root.

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { tempDir } from "./temp-dir.ts";

export interface SmallVolume extends Disposable {
  readonly path: string;
  /** Makes it larger or smaller while it is in use. */
  resize(bytes: number): void;
  /** From now on it can only be read. */
  forbidWriting(): void;
}

/** A memory file system of `bytes`, unmounted when disposed of. */
export function mountSmallVolume(bytes: number): SmallVolume {
  const dir = tempDir();
  const path = join(dir.path, "volume");
  mkdirSync(path);
  command("mount", "-t", "tmpfs", "-o", `size=${bytes},mode=700`, "tmpfs", path);
  return {
    path,
    resize: (size) => command("mount", "-o", `remount,size=${size}`, path),
    forbidWriting: () => command("mount", "-o", "remount,ro", path),
    [Symbol.dispose]() {
      command("umount", "--lazy", path);
      dir[Symbol.dispose]();
    },
  };
}

function command(...words: string[]): void {
  const { exitCode, stderr } = Bun.spawnSync(words, { stdout: "ignore", stderr: "pipe" });
  if (exitCode !== 0) throw new Error(`${words.join(" ")}: ${stderr}`);
}
