// A virtual machine whose power can be cut: Debian's kernel under QEMU, emulated, so that it runs anywhere.

import { copyFileSync, cpSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import type { Environment } from "../test/support/executable.ts";
import { freePort } from "../test/support/free-port.ts";

export const PACKAGES = ["qemu-system-x86", "linux-image-cloud-amd64", "busybox-static", "e2fsprogs", "cpio"];

const KERNELS = "/boot";
const MODULES = "/lib/modules";
const DRIVERS = ["virtio_pci", "virtio_blk", "virtio_net"];
const QEMU = "qemu-system-x86_64";
const GUEST_PORT = 8080;
const MEMORY_MIB = 768;
const PROGRAM_DISK_MIB = 256;
const BOOT_TIMEOUT_MS = 120_000;

/** What is mounted where: the programs read-only, the data as ext4 behind a volatile page cache. */
const INIT = `#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod /modules/$module; done
mount -t ext4 -o ro /dev/vda /program
mount -t ext4 /dev/vdb /data
mkdir -p /tmp
ifconfig lo up
ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
stty -F /dev/ttyS1 raw
/program/job > /dev/ttyS1
echo "the job ended with $?"
while true; do sleep 1000; done
`;

/** The programs that are missing on this machine; empty when a machine can be run. */
export function missingPrograms(): string[] {
  const programs = [QEMU, "mke2fs", "busybox", "cpio"].filter((name) => Bun.which(name) === null);
  return cloudKernel() === null ? [...programs, "a cloud kernel in /boot"] : programs;
}

/** The version of the newest one. */
function cloudKernel(): string | null {
  const names = readdirSync(KERNELS).filter((name) => /^vmlinuz-.*-cloud-amd64$/.test(name));
  return names.sort(Bun.semver.order).at(-1)?.slice("vmlinuz-".length) ?? null;
}

export interface MachineParts {
  readonly kernel: string;
  readonly initialDisk: string;
  readonly programDisk: string;
}

/** Builds what every boot needs. `programs`: files by their name in the guest. */
export function buildMachine(scratch: string, programs: Readonly<Record<string, string>>): MachineParts {
  const version = cloudKernel()!;
  const root = join(scratch, "initial");
  for (const folder of ["bin", "proc", "sys", "dev", "modules", "program", "data", "lib64"]) {
    mkdirSync(join(root, folder), { recursive: true });
  }
  copyFileSync(Bun.which("busybox")!, join(root, "bin/busybox"));
  for (const name of ["sh", "mount", "insmod", "cat", "mkdir", "ifconfig", "stty", "sleep", "echo"]) {
    symlinkSync("busybox", join(root, "bin", name));
  }
  const modules = modulesInOrder(join(MODULES, version), DRIVERS);
  for (const path of modules) copyFileSync(join(MODULES, version, path), join(root, "modules", basename(path)));
  writeFileSync(join(root, "modules/order"), modules.map((path) => basename(path)).join("\n"));
  symlinkSync("/program/lib64/ld-linux-x86-64.so.2", join(root, "lib64/ld-linux-x86-64.so.2"));
  writeFileSync(join(root, "init"), INIT, { mode: 0o755 });
  const initialDisk = join(scratch, "initial.cpio");
  command(["sh", "-c", `cd '${root}' && find . | cpio -o -H newc --quiet > '${initialDisk}'`]);
  return {
    kernel: join(KERNELS, `vmlinuz-${version}`),
    initialDisk,
    programDisk: buildProgramDisk(scratch, programs),
  };
}

function buildProgramDisk(scratch: string, programs: Readonly<Record<string, string>>): string {
  const folder = join(scratch, "program");
  mkdirSync(join(folder, "lib64"), { recursive: true });
  for (const [name, path] of Object.entries(programs)) cpSync(path, join(folder, name), { dereference: true });
  for (const library of ["ld-linux-x86-64.so.2", "libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2"]) {
    const path = join("/lib/x86_64-linux-gnu", library);
    cpSync(path, join(folder, "lib64", library), { dereference: true });
  }
  const disk = join(scratch, "program.img");
  command(["mke2fs", "-q", "-t", "ext4", "-d", folder, disk, `${PROGRAM_DISK_MIB}M`]);
  return disk;
}

/** A kernel module and what it needs, dependencies first. */
function modulesInOrder(folder: string, names: readonly string[]): string[] {
  const needs = new Map<string, string[]>();
  for (const line of readFileSync(join(folder, "modules.dep"), "utf8").split("\n")) {
    const [path = "", rest = ""] = line.split(":");
    needs.set(path, rest.trim() === "" ? [] : rest.trim().split(" "));
  }
  const ordered: string[] = [];
  const add = (path: string) => {
    for (const needed of needs.get(path)!) add(needed);
    if (!ordered.includes(path)) ordered.push(path);
  };
  for (const name of names) {
    const path = [...needs.keys()].find((candidate) => basename(candidate) === `${name}.ko`);
    if (path !== undefined) add(path);
  }
  return ordered;
}

/** An empty ext4 disk for the data of a machine. */
export function makeDataDisk(path: string, mebibytes: number): string {
  mkdirSync(dirname(path), { recursive: true });
  command(["mke2fs", "-q", "-F", "-t", "ext4", path, `${mebibytes}M`]);
  return path;
}

export class PowerCutMachine {
  /** Where the port of the guest's server is reached. */
  readonly url: string;
  readonly #child: Bun.Subprocess;
  readonly #console: string;
  readonly #output: string;

  private constructor(child: Bun.Subprocess, url: string, console: string, output: string) {
    this.#child = child;
    this.url = url;
    this.#console = console;
    this.#output = output;
  }

  /** Boots; the guest runs `/program/job`, whose standard output is `output`. */
  static boot(parts: MachineParts, dataDisk: string, scratch: string, environment: Environment): PowerCutMachine {
    const port = freePort();
    const [consoleFile, outputFile] = [join(scratch, "console.log"), join(scratch, "output.log")];
    for (const file of [consoleFile, outputFile]) writeFileSync(file, "");
    const settings = Object.entries(environment).map(([name, value]) => `${name}=${value}`);
    const child = Bun.spawn(
      [
        QEMU,
        "-machine",
        "pc,accel=tcg",
        "-cpu",
        "max",
        "-smp",
        "1",
        "-m",
        `${MEMORY_MIB}`,
        "-display",
        "none",
        "-no-reboot",
        "-kernel",
        parts.kernel,
        "-initrd",
        parts.initialDisk,
        "-append",
        `console=ttyS0 quiet panic=-1 ${settings.join(" ")}`,
        "-serial",
        `file:${consoleFile}`,
        "-serial",
        `file:${outputFile}`,
        "-drive",
        `file=${parts.programDisk},if=virtio,format=raw,readonly=on`,
        "-drive",
        `file=${dataDisk},if=virtio,format=raw,cache=writeback`,
        "-netdev",
        `user,id=net,hostfwd=tcp:127.0.0.1:${port}-10.0.2.15:${GUEST_PORT}`,
        "-device",
        "virtio-net-pci,netdev=net,romfile=",
      ],
      { stdio: ["ignore", "ignore", "inherit"] },
    );
    return new PowerCutMachine(child, `http://127.0.0.1:${port}`, consoleFile, outputFile);
  }

  /** What the job has written to its standard output so far. */
  output(): string {
    return readFileSync(this.#output, "latin1");
  }

  /** Resolves when the guest's server is ready. @throws Error with the console, when it takes too long or has ended */
  async ready(): Promise<void> {
    const deadlineMs = performance.now() + BOOT_TIMEOUT_MS;
    for (;;) {
      const answer = await fetch(`${this.url}/readyz`, { signal: AbortSignal.timeout(2_000) }).catch(() => null);
      if (answer?.status === 200) return;
      const console = readFileSync(this.#console, "latin1");
      if (performance.now() > deadlineMs || this.#child.exitCode !== null || console.includes("the job ended")) {
        throw new Error(`the machine is not ready:\n${console}`);
      }
      await Bun.sleep(50);
    }
  }

  /** The whole machine is gone at once, with all that was only in its memory. */
  async cutPower(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#child.exited;
  }
}

function command(words: readonly string[]): void {
  const { exitCode, stderr } = Bun.spawnSync([...words], { stdout: "ignore", stderr: "pipe" });
  if (exitCode !== 0) throw new Error(`${words[0]} ended with ${exitCode}: ${stderr}`);
}
