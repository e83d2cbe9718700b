// What is shipped: the executable, which depends on its sources alone, and the files that put it into a container.

import { beforeAll, describe, expect, test } from "bun:test";
import { cpSync, mkdirSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { parseDurationMs } from "../../src/shared/durations.ts";
import { SETTINGS } from "../../src/shared/settings.ts";
import { cleanEnv, type Environment, ROOT } from "../support/executable.ts";
import { tempDir } from "../support/temp-dir.ts";

const BUILD_MS_MAX = 300_000;
const MANIFEST = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
/** What a build needs of node_modules does not include these, the largest of it. */
const NOT_BUNDLED = ["bun", "bun-types", "@oven", "@biomejs", ".bin"];

function build(root: string, out: string, env: Environment = {}): void {
  const { exitCode, stderr } = Bun.spawnSync([process.execPath, join(root, "scripts/build.ts"), out], {
    cwd: root,
    env: cleanEnv(env),
  });
  if (exitCode !== 0) throw new Error(`the build failed:\n${stderr}`);
}

/** The sources and their packages in another folder. */
function copySources(target: string): void {
  for (const name of ["src", "scripts", "package.json", "bunfig.toml", "tsconfig.json"]) {
    cpSync(join(ROOT, name), join(target, name), { recursive: true });
  }
  const packages = join(ROOT, "node_modules");
  for (const name of readdirSync(packages).filter((entry) => !NOT_BUNDLED.includes(entry))) {
    cpSync(join(packages, name), join(target, "node_modules", name), { recursive: true });
  }
}

describe("the executable", () => {
  test(
    "is the same bytes from two builds, whatever the environment, the folder and the time",
    () => {
      using dir = tempDir();
      const elsewhere = dir.file("another", "folder");
      mkdirSync(elsewhere, { recursive: true });
      copySources(elsewhere);
      build(ROOT, dir.file("first"));
      build(ROOT, dir.file("second"), { NODE_ENV: "test", HOME: dir.path, TZ: "Asia/Tokyo", LANG: "ja_JP.UTF-8" });
      build(elsewhere, dir.file("third"));
      const [first, second, third] = ["first", "second", "third"].map((name) => readFileSync(dir.file(name, "gokv")));
      // Not toEqual: a difference would be printed, all of it.
      expect(first!.equals(second!)).toBe(true);
      expect(first!.equals(third!)).toBe(true);
      expect(third!.includes(dir.path)).toBe(false);
    },
    BUILD_MS_MAX,
  );

  test(
    "stands alone in its folder, with jwt-gen as a link to it and no source map",
    () => {
      using dir = tempDir();
      build(ROOT, dir.file("bin"));
      expect(readdirSync(dir.file("bin")).sort()).toEqual(["gokv", "jwt-gen"]);
      expect(readlinkSync(dir.file("bin", "jwt-gen"))).toBe("gokv");
    },
    BUILD_MS_MAX,
  );
});

interface Instruction {
  readonly name: string;
  readonly args: string;
}

/** The stages of the Dockerfile, each from its FROM on, without comments and with broken lines joined. */
function readStages(): Instruction[][] {
  const text = readFileSync(join(ROOT, "Dockerfile"), "utf8")
    .replace(/^\s*#.*\n/gm, "")
    .replaceAll("\\\n", " ");
  const stages: Instruction[][] = [];
  for (const line of text.split("\n").filter((candidate) => candidate.trim() !== "")) {
    const [, name = "", args = ""] = /^(\S+)\s+(.*)$/.exec(line.trim()) ?? [];
    if (name === "FROM") stages.push([]);
    stages.at(-1)!.push({ name, args });
  }
  return stages;
}

/** Without `--from`: what comes from the sources. */
function copiedSources(stage: readonly Instruction[]): string[] {
  const copies = stage.filter(({ name, args }) => name === "COPY" && !args.includes("--from="));
  return copies.flatMap(({ args }) => args.split(/\s+/).slice(0, -1));
}

describe("the Dockerfile", () => {
  let builder: Instruction[];
  let final: Instruction[];
  let stages: Instruction[][];
  const argsOf = (name: string) => final.filter((candidate) => candidate.name === name).map(({ args }) => args);

  beforeAll(() => {
    stages = readStages();
    [builder = [], final = []] = stages;
  });

  test("builds with the project's own version of Bun and ends in distroless", () => {
    expect(stages).toHaveLength(2);
    expect(builder[0]!.args).toBe(`oven/${MANIFEST.packageManager.replace("@", ":")} AS build`);
    expect(final[0]!.args).toBe("gcr.io/distroless/base-nossl-debian12:nonroot");
  });

  test("installs the locked packages before it copies any source", () => {
    const install = builder.findIndex(({ name, args }) => name === "RUN" && args.startsWith("bun install"));
    expect(builder[install]!.args).toContain("--frozen-lockfile");
    expect(copiedSources(builder.slice(0, install)).sort()).toEqual(["bun.lock", "bunfig.toml", "package.json"]);
    expect(copiedSources(builder.slice(install))).toContain("src");
    expect(builder.at(-1)!.args).toStartWith("bun scripts/build.ts /out/bin");
  });

  test("copies the folder of the executable as a whole, so that its link stays a link", () => {
    expect(argsOf("COPY")).toEqual(["--from=build /out/bin/ /", "--from=build --chown=65532:65532 /out/volume/ /"]);
    expect(argsOf("RUN")).toEqual([]);
  });

  test("says how the image runs, and leaves mode and secret to the operator", () => {
    expect(argsOf("ENV")).toEqual(["DB_PATH=/data BUN_CONFIG_MAX_HTTP_REQUESTS=4096"]);
    expect(argsOf("EXPOSE")).toEqual([SETTINGS.port.fallback!]);
    expect(argsOf("VOLUME")).toEqual(["/data"]);
    expect(argsOf("USER")).toEqual(["65532:65532"]);
    expect(argsOf("HEALTHCHECK")).toHaveLength(1);
    expect(argsOf("HEALTHCHECK")[0]).toMatch(/^(--\S+ )*CMD \["\/gokv", "healthcheck"\]$/);
    expect(argsOf("ENTRYPOINT")).toEqual(['["/gokv"]']);
    expect(stages.flat().filter(({ name }) => ["ARG", "CMD", "LABEL"].includes(name))).toEqual([]);
  });

  test("lets a builder see what it copies and nothing else", () => {
    const lines = readFileSync(join(ROOT, ".dockerignore"), "utf8").split("\n");
    const [first, ...others] = lines.filter((line) => line !== "" && !line.startsWith("#"));
    expect(first).toBe("*");
    expect(others.sort()).toEqual(
      copiedSources(builder)
        .map((source) => `!${source}`)
        .sort(),
    );
  });
});

describe("compose.yaml", () => {
  interface Service {
    readonly [name: string]: unknown;
    readonly environment: Readonly<Record<string, string>>;
    readonly stop_grace_period: string;
  }
  const compose = Bun.YAML.parse(readFileSync(join(ROOT, "compose.yaml"), "utf8")) as {
    services: Record<string, Service>;
    volumes: Record<string, unknown>;
  };
  const service = compose.services.gokv!;

  test("runs the image with a read-only root, no capabilities and no new privileges, data in a volume", () => {
    expect(service).toMatchObject({
      build: ".",
      read_only: true,
      cap_drop: ["ALL"],
      security_opt: ["no-new-privileges:true"],
      ports: ["8080:8080"],
      volumes: ["data:/data"],
      restart: "unless-stopped",
    });
    expect(Object.keys(compose.volumes)).toEqual(["data"]);
    expect(Object.keys(service)).not.toContain("healthcheck");
    expect(Object.keys(service)).not.toContain("privileged");
  });

  test("takes the secret from outside and stops with a message when there is none", () => {
    expect(service.environment.JWT_SECRET).toMatch(/^\$\{JWT_SECRET:\?set it in .+\}$/);
  });

  test("waits longer for the end than the server takes for it", () => {
    const grantedMs = parseDurationMs(service.stop_grace_period)!;
    expect(grantedMs).toBeGreaterThan(parseDurationMs(SETTINGS.shutdownTimeoutMs.fallback!)! + 5000);
  });
});
