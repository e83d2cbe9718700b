// Builds and reads container images with buildah, in a storage of its own that leaves the machine's images alone.

import { join } from "node:path";
import { requireTool } from "./run-tool.ts";

/** What an image says about how it is to be run, in Docker's words. */
export interface ImageConfig {
  readonly User: string;
  readonly Env: readonly string[];
  readonly Entrypoint: readonly string[];
  readonly Cmd: readonly string[] | null;
  readonly WorkingDir: string;
  readonly ExposedPorts: Readonly<Record<string, object>>;
  readonly Volumes: Readonly<Record<string, object>>;
  readonly Healthcheck?: { readonly Test: readonly string[] };
}

export interface Image {
  readonly config: ImageConfig;
  /** Of all layers, unpacked. */
  readonly bytes: number;
  /** The folder with its files; to be read, and run read-only. */
  readonly rootfs: string;
}

export class Buildah {
  readonly #command: readonly string[];
  readonly #signal: AbortSignal;

  constructor(folder: string, signal: AbortSignal) {
    const storage = ["--root", join(folder, "storage"), "--runroot", join(folder, "run"), "--storage-driver", "vfs"];
    this.#command = ["buildah", ...storage];
    this.#signal = signal;
  }

  /** Builds the Dockerfile in `context`. Never pulls: every base image must have been built here before. */
  async build(context: string, tag: string, onLine?: (line: string) => void): Promise<void> {
    // Only Docker's own format keeps a HEALTHCHECK; chroot isolation needs neither a runtime nor a bridge.
    const how = ["--format", "docker", "--isolation", "chroot", "--network", "host", "--pull-never"];
    await this.#run(["bud", ...how, "--tag", tag, context], onLine);
  }

  async open(tag: string): Promise<Image> {
    const { Docker, Manifest } = JSON.parse(await this.#run(["inspect", "--type", "image", tag]));
    const layers: { size: number }[] = JSON.parse(Manifest).layers;
    const container = (await this.#run(["from", "--pull-never", tag])).trim();
    const rootfs = (await this.#run(["mount", container])).trim();
    return { config: Docker.config, bytes: layers.reduce((sum, { size }) => sum + size, 0), rootfs };
  }

  #run(args: readonly string[], onLine: (line: string) => void = () => undefined): Promise<string> {
    return requireTool([...this.#command, ...args], { signal: this.#signal, onLine });
  }
}
