// Runs an image with runc the way a careful operator would: read-only root, no capabilities, no new privileges.

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Image } from "./buildah.ts";
import { type Finished, requireTool, runTool } from "./run-tool.ts";

const READY_MS_MAX = 60_000;
const STOP_MS_MAX = 60_000;
const NOTHING: readonly string[] = [];

export interface ContainerPlan {
  readonly image: Image;
  /** Mounted at /data. */
  readonly volume: string;
  /** Added to the image's own environment. */
  readonly env: Readonly<Record<string, string>>;
  /** A folder for bundles and state. */
  readonly scratch: string;
  readonly signal: AbortSignal;
}

let containers = 0;

/** Runs `args` as the only process of a container of its own, to its end. */
export async function runOnce(plan: ContainerPlan, args: readonly string[]): Promise<Finished> {
  const { id, run } = await writeBundle(plan, args);
  try {
    return await runTool(run, { signal: plan.signal });
  } finally {
    await runTool([...runc(plan), "delete", "--force", id]);
  }
}

/** The image's own entrypoint, running. */
export class RunningContainer implements AsyncDisposable {
  readonly #plan: ContainerPlan;
  readonly #id: string;
  readonly #process: Bun.Subprocess<"ignore", "ignore", "pipe">;
  #log = "";
  #door: { readonly socket: string; readonly process: Bun.Subprocess } | undefined;

  private constructor(plan: ContainerPlan, id: string, run: readonly string[]) {
    this.#plan = plan;
    this.#id = id;
    this.#process = Bun.spawn([...run], { stdin: "ignore", stdout: "ignore", stderr: "pipe" });
  }

  /** Resolves when the server in it listens on `port` of its own loopback device. */
  static async start(plan: ContainerPlan, port: number): Promise<RunningContainer> {
    const { Entrypoint, Cmd } = plan.image.config;
    const { id, run } = await writeBundle(plan, [...Entrypoint, ...(Cmd ?? NOTHING)]);
    const container = new RunningContainer(plan, id, run);
    try {
      await container.#untilListening();
      await container.#openDoor(port);
      return container;
    } catch (error) {
      await container[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Sends a request to the server, from inside the container's network. */
  fetch(path: string, init: RequestInit = {}): Promise<Response> {
    return fetch(`http://127.0.0.1${path}`, { ...init, unix: this.#door!.socket, signal: this.#plan.signal });
  }

  /** Runs a further process in the container, with the same rights. */
  exec(args: readonly string[]): Promise<Finished> {
    return runTool([...runc(this.#plan), "exec", this.#id, ...args], { signal: this.#plan.signal });
  }

  /** The lines of /proc/PID/`file` of its first process, as the machine sees it. */
  async processFile(file: "status" | "mountinfo"): Promise<readonly string[]> {
    return readFileSync(`/proc/${await this.#pid()}/${file}`, "utf8")
      .trimEnd()
      .split("\n");
  }

  /** Sends SIGTERM, as container engines do, and returns the exit code. */
  async stop(): Promise<number> {
    await requireTool([...runc(this.#plan), "kill", this.#id, "TERM"]);
    return withDeadline(this.#process.exited, STOP_MS_MAX, () => `still running after SIGTERM:\n${this.#log}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#door?.process.kill();
    await runTool([...runc(this.#plan), "delete", "--force", this.#id]);
    this.#process.kill("SIGKILL");
    await this.#process.exited;
  }

  /** Reads the log for as long as the process lives: the server would block on a full pipe. */
  #untilListening(): Promise<void> {
    const listening = Promise.withResolvers<void>();
    const readLog = async () => {
      const decoder = new TextDecoder();
      for await (const chunk of this.#process.stderr) {
        this.#log += decoder.decode(chunk, { stream: true });
        if (this.#log.includes('"msg":"listening"')) listening.resolve();
      }
      listening.reject(new Error(`the container ended with ${await this.#process.exited}:\n${this.#log}`));
    };
    readLog().catch(listening.reject);
    return withDeadline(listening.promise, READY_MS_MAX, () => `not listening after ${READY_MS_MAX} ms:\n${this.#log}`);
  }

  async #openDoor(port: number): Promise<void> {
    const socket = join(this.#plan.scratch, `${this.#id}.sock`);
    const enter = ["nsenter", "--target", `${await this.#pid()}`, "--net", "--"];
    const forward = [process.execPath, join(import.meta.dir, "network-door.ts"), socket, `${port}`];
    const door = Bun.spawn([...enter, ...forward], { stdin: "ignore", stdout: "pipe", stderr: "inherit" });
    this.#door = { socket, process: door };
    const { done } = await door.stdout.getReader().read();
    if (done) throw new Error("the container's network cannot be entered");
  }

  async #pid(): Promise<number> {
    return JSON.parse(await requireTool([...runc(this.#plan), "state", this.#id])).pid;
  }
}

function runc(plan: ContainerPlan): readonly string[] {
  return ["runc", "--root", join(plan.scratch, "state")];
}

async function writeBundle(
  plan: ContainerPlan,
  args: readonly string[],
): Promise<{ id: string; run: readonly string[] }> {
  containers += 1;
  const id = `gokv-image-check-${process.pid}-${containers}`;
  const bundle = join(plan.scratch, id);
  mkdirSync(bundle, { recursive: true });
  writeFileSync(join(bundle, "config.json"), JSON.stringify(ociConfig(plan, args)));
  return { id, run: [...runc(plan), "run", "--bundle", bundle, id] };
}

/** https://github.com/opencontainers/runtime-spec/blob/v1.0.2/config.md */
function ociConfig({ image, volume, env }: ContainerPlan, args: readonly string[]): object {
  const [uid, gid] = image.config.User.split(":").map(Number);
  const quiet = ["nosuid", "noexec", "nodev"];
  return {
    ociVersion: "1.0.2",
    process: {
      terminal: false,
      user: { uid, gid },
      args,
      env: [...image.config.Env, ...Object.entries(env).map(([name, value]) => `${name}=${value}`)],
      cwd: image.config.WorkingDir || "/",
      capabilities: { bounding: [], effective: [], permitted: [], inheritable: [], ambient: [] },
      noNewPrivileges: true,
    },
    root: { path: image.rootfs, readonly: true },
    hostname: "gokv",
    mounts: [
      { destination: "/proc", type: "proc", source: "proc" },
      { destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["nosuid", "mode=755", "size=64k"] },
      { destination: "/dev/shm", type: "tmpfs", source: "shm", options: [...quiet, "mode=1777", "size=64m"] },
      { destination: "/sys", type: "sysfs", source: "sysfs", options: [...quiet, "ro"] },
      { destination: "/data", type: "bind", source: volume, options: ["bind", "rw", ...quiet] },
    ],
    linux: {
      resources: { devices: [{ allow: false, access: "rwm" }] },
      namespaces: ["pid", "network", "ipc", "uts", "mount"].map((type) => ({ type })),
      maskedPaths: ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
      readonlyPaths: ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    },
  };
}

async function withDeadline<T>(result: Promise<T>, deadlineMs: number, message: () => string): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error(message())), deadlineMs);
  try {
    return await Promise.race([result, promise]);
  } finally {
    clearTimeout(timer);
  }
}
