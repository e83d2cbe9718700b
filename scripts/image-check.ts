// Builds the Dockerfile for real and runs what comes out; needs root, buildah and runc, but no container registry.
//
//   bun scripts/image-check.ts      exit 0 = all checks passed, 1 = one failed, 2 = the machine lacks something
//
// The two base images are stand-ins made of Debian packages. So this shows that the Dockerfile is right and that the
// program needs nothing but glibc; what the published base images hold besides is theirs to answer for.

import { chownSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { Buildah, type Image } from "./buildah.ts";
import { type ContainerPlan, RunningContainer, runOnce } from "./oci-container.ts";
import { requireTool } from "./run-tool.ts";
import { buildBuilderStandIn, buildRuntimeStandIn, downloadPackages } from "./stand-in-images.ts";

const ROOT = join(import.meta.dir, "..");
const TAG = "localhost/gokv:check";
const IMAGE_BYTES_MAX = 140e6;
const USER = 65_532;
const PORT = 8080;
const SECRET = "image-check-secret-of-more-than-32-bytes";
const SHELLS = ["ash", "bash", "busybox", "csh", "dash", "ksh", "sh", "toybox", "zsh"];
const PERMISSIONS = 0o7777;
const SET_ID = 0o6000;
const NO_CAPABILITIES = "0".repeat(16);

const NEEDED_PROGRAMS: Readonly<Record<string, string>> = {
  "apt-get": "apt",
  "dpkg-deb": "dpkg",
  buildah: "buildah",
  nsenter: "util-linux",
  runc: "runc",
  tar: "tar",
};

/** Throws unless `actual` equals `expected`. */
function same(what: string, actual: unknown, expected: unknown): void {
  if (isDeepStrictEqual(actual, expected)) return;
  throw new Error(`${what}\n  expected ${JSON.stringify(expected)}\n  got      ${JSON.stringify(actual)}`);
}

/** Throws with `detail` unless `isTrue`. */
function must(what: string, isTrue: boolean, detail: unknown): void {
  if (!isTrue) throw new Error(`${what}\n  got ${typeof detail === "string" ? detail : JSON.stringify(detail)}`);
}

/** Prints each step with its time; on a terminal also what it is at. */
class Steps {
  count = 0;

  async run<T>(name: string, work: (progress: (text: string) => void) => Promise<T>): Promise<T> {
    const startMs = performance.now();
    const seconds = () => ((performance.now() - startMs) / 1000).toFixed(1);
    let doing = "";
    const { stdout } = process;
    const draw = () => stdout.write(`\r\x1b[K     ${name} (${seconds()} s) ${doing}`.slice(0, stdout.columns));
    const timer = stdout.isTTY ? setInterval(draw, 200) : undefined;
    const end = (result: string) => console.log(`${stdout.isTTY ? "\r\x1b[K" : ""}${result} ${name} (${seconds()} s)`);
    try {
      const value = await work((text) => {
        doing = text;
      });
      end("ok  ");
      this.count += 1;
      return value;
    } catch (error) {
      end("FAIL");
      throw error;
    } finally {
      clearInterval(timer);
    }
  }
}

function checkConfig({ config }: Image): void {
  same("the user", config.User, `${USER}:${USER}`);
  same("the entrypoint", config.Entrypoint, ["/gokv"]);
  same("no further arguments", config.Cmd ?? [], []);
  same("the exposed ports", Object.keys(config.ExposedPorts), [`${PORT}/tcp`]);
  same("the volumes", Object.keys(config.Volumes), ["/data"]);
  same("the health check", config.Healthcheck?.Test, ["CMD", "/gokv", "healthcheck"]);
  const env = config.Env.filter((line) => !/^(PATH|SSL_CERT_FILE)=/.test(line)).sort();
  same("the environment", env, ["BUN_CONFIG_MAX_HTTP_REQUESTS=4096", "DB_PATH=/data"]);
}

/** The image's files against its base's, and the executable against one that is built here. */
async function checkFiles({ rootfs, bytes }: Image, base: string, here: string): Promise<void> {
  const files = readdirSync(rootfs, { recursive: true }) as string[];
  const inherited = new Set(readdirSync(base, { recursive: true }) as string[]);
  const added = files.filter((file) => !inherited.has(file)).sort();
  same("what the Dockerfile adds", added, ["data", "gokv", "jwt-gen"]);
  const shells = files.filter((file) => SHELLS.includes(basename(file)));
  same("shells", shells, []);
  const stats = files.map((file) => ({ file, stat: lstatSync(join(rootfs, file)) }));
  const privileged = stats.filter(({ stat }) => stat.isFile() && (stat.mode & SET_ID) !== 0).map(({ file }) => file);
  same("set-id files", privileged, []);
  must("jwt-gen is a link", lstatSync(join(rootfs, "jwt-gen")).isSymbolicLink(), "a file of its own");
  same("where jwt-gen leads", readlinkSync(join(rootfs, "jwt-gen")), "gokv");
  same("owner and mode of /data", ownerAndMode(join(rootfs, "data")), `${USER}:${USER} 700`);
  same("owner and mode of /gokv", ownerAndMode(join(rootfs, "gokv")), "0:0 755");
  must(`at most ${IMAGE_BYTES_MAX / 1e6} MB`, bytes <= IMAGE_BYTES_MAX, `${bytes} bytes`);
  await requireTool([process.execPath, join(ROOT, "scripts/build.ts"), here]);
  same("the same executable as one built here", sha256(join(rootfs, "gokv")), sha256(join(here, "gokv")));
}

function ownerAndMode(path: string): string {
  const { uid, gid, mode } = lstatSync(path);
  return `${uid}:${gid} ${(mode & PERMISSIONS).toString(8)}`;
}

function sha256(file: string): string {
  return new Bun.CryptoHasher("sha256").update(readFileSync(file)).digest("hex");
}

/** Each in a container of its own: the two names, and what must not work. Returns a token. */
async function checkPrograms(plan: ContainerPlan): Promise<string> {
  const version = await runOnce(plan, ["/gokv", "version"]);
  must("gokv version", version.exitCode === 0 && version.stdout.startsWith("gokv "), version);
  const minted = await runOnce(plan, ["/jwt-gen", "--secret", SECRET, "--expires-in", "1h"]);
  must("jwt-gen prints a token", minted.exitCode === 0 && /^eyJ[\w-]+\.[\w-]+\.[\w-]+\n$/.test(minted.stdout), minted);
  const shell = await runOnce(plan, ["/bin/sh", "-c", "exit 0"]);
  must("/bin/sh does not start", shell.exitCode !== 0 && shell.stderr.includes("no such file"), shell);
  const unserved = await runOnce(plan, ["/gokv", "healthcheck"]);
  same("the health check without a server", unserved.exitCode, 1);
  return minted.stdout.trim();
}

/** What the kernel says about the server's process. */
async function checkConfinement(container: RunningContainer): Promise<void> {
  const status = Object.fromEntries((await container.processFile("status")).map((line) => line.split(/:\s*/, 2)));
  same("the user of the process", status.Uid, Array(4).fill(USER).join("\t"));
  same("the group of the process", status.Gid, Array(4).fill(USER).join("\t"));
  same("its number in the container", status.NSpid.split("\t").at(-1), "1");
  same("no new privileges", status.NoNewPrivs, "1");
  for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]) same(set, status[set], NO_CAPABILITIES);
  const mounts = (await container.processFile("mountinfo")).map((line) => line.split(" "));
  const isReadOnly = (path: string) =>
    mounts
      .find((fields) => fields[4] === path)?.[5]
      ?.split(",")
      .includes("ro");
  same("the root is read-only", isReadOnly("/"), true);
  same("/data is not", isReadOnly("/data"), false);
}

async function checkWrites(container: RunningContainer): Promise<void> {
  for (const target of ["/copy.db", "/tmp/copy.db"]) {
    const refused = await container.exec(["/gokv", "backup", target]);
    must(`no backup to ${target}`, refused.exitCode === 1 && refused.stderr.includes("EROFS"), refused);
  }
  const written = await container.exec(["/gokv", "backup", "/data/copy.db"]);
  same("a backup into the volume", written.exitCode, 0);
}

async function checkRequests(container: RunningContainer, token: string): Promise<void> {
  const headers = { Authorization: `Bearer ${token}` };
  const send = async (method: string, path: string, body?: string) => {
    const response = await container.fetch(path, { method, headers, ...(body === undefined ? {} : { body }) });
    return [response.status, await response.text()];
  };
  same("a request without a token", (await container.fetch("/users/1")).status, 401);
  same("POST", await send("POST", "/users/1", "Ada"), [200, ""]);
  same("POST of another", await send("POST", "/users/2", "Grace"), [200, ""]);
  same("GET", await send("GET", "/users/1"), [200, "Ada"]);
  same("the list of buckets", await send("GET", "/_list"), [200, '["users"]']);
  same("the list of keys", await send("GET", "/_list?bucket=users"), [200, '["1","2"]']);
  same("DELETE", await send("DELETE", "/users/2"), [200, ""]);
  same("GET of what was deleted", (await send("GET", "/users/2"))[0], 404);
  const probe = await container.exec(["/gokv", "healthcheck"]);
  same("the health check beside the server", [probe.exitCode, probe.stderr], [0, ""]);
}

async function checkSecondRun(plan: ContainerPlan, token: string): Promise<void> {
  await using container = await RunningContainer.start(plan, PORT);
  const headers = { Authorization: `Bearer ${token}` };
  const kept = await container.fetch("/users/1", { headers });
  same("the value of the first run", [kept.status, await kept.text()], [200, "Ada"]);
  same("the list of keys", await (await container.fetch("/_list?bucket=users", { headers })).json(), ["1"]);
  same("the exit code", await container.stop(), 0);
}

/** What an engine makes of a new named volume: a folder with owner and mode of the one in the image. */
function createVolume(path: string, { rootfs }: Image): string {
  const { uid, gid, mode } = lstatSync(join(rootfs, "data"));
  mkdirSync(path, { mode });
  chownSync(path, uid, gid);
  return path;
}

async function checkImage(scratch: string, signal: AbortSignal, steps: Steps): Promise<void> {
  const buildah = new Buildah(join(scratch, "images"), signal);
  const packages = join(scratch, "packages");
  await steps.run("download of the Debian packages", () => downloadPackages(packages, signal));
  const base = await steps.run("stand-in for distroless", () =>
    buildRuntimeStandIn(buildah, join(scratch, "runtime"), packages),
  );
  await steps.run("stand-in for oven/bun", () => buildBuilderStandIn(buildah, join(scratch, "builder"), packages));
  await steps.run("build of the Dockerfile", (progress) => buildah.build(ROOT, TAG, progress));
  const image = await steps.run("configuration of the image", async () => {
    const opened = await buildah.open(TAG);
    checkConfig(opened);
    return opened;
  });
  await steps.run("files of the image", () => checkFiles(image, base, join(scratch, "here")));
  const plan: ContainerPlan = {
    image,
    volume: createVolume(join(scratch, "volume"), image),
    env: { JWT_SECRET: SECRET, GIN_MODE: "release" },
    scratch: join(scratch, "containers"),
    signal,
  };
  const token = await steps.run("both names, no shell", () => checkPrograms(plan));
  {
    await using container = await steps.run("start as process 1", () => RunningContainer.start(plan, PORT));
    await steps.run("user, capabilities, mounts", () => checkConfinement(container));
    await steps.run("POST, GET, _list, DELETE, healthcheck", () => checkRequests(container, token));
    await steps.run("writes in the volume only", () => checkWrites(container));
    await steps.run("SIGTERM", async () => same("the exit code", await container.stop(), 0));
  }
  await steps.run("second run on the same volume", () => checkSecondRun(plan, token));
  console.log(`figure: image ${(image.bytes / 1e6).toFixed(1)} MB of at most ${IMAGE_BYTES_MAX / 1e6} MB`);
}

/** What is missing, in words; empty when nothing is. */
function findMissing(): string[] {
  const packages = Object.entries(NEEDED_PROGRAMS).flatMap(([name, debian]) => (Bun.which(name) ? [] : [debian]));
  const missing = packages.length === 0 ? [] : [`apt-get install --no-install-recommends ${packages.join(" ")}`];
  if (process.platform !== "linux") missing.push("a Debian machine");
  if (process.getuid?.() !== 0) missing.push("root: containers without user namespaces need it");
  return missing;
}

/** Removes everything, unless something is still mounted in it: that would be emptied as well. */
function removeScratch(scratch: string): void {
  const mounts = readFileSync("/proc/self/mountinfo", "utf8").split("\n");
  if (mounts.some((line) => line.includes(` ${scratch}/`))) {
    console.error(`${scratch} is kept: something is mounted in it`);
  } else rmSync(scratch, { recursive: true, force: true });
}

const missing = findMissing();
if (missing.length > 0) {
  console.error(`image-check needs:\n${missing.map((line) => `  - ${line}`).join("\n")}`);
  process.exit(2);
}
const startMs = performance.now();
const scratch = mkdtempSync(join(tmpdir(), "gokv-image-"));
const interruption = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => interruption.abort(new Error(signal)));
const steps = new Steps();
let isPassed = false;
try {
  await checkImage(scratch, interruption.signal, steps);
  isPassed = true;
} catch (error) {
  console.log((error as Error).message);
} finally {
  removeScratch(scratch);
}
const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
console.log(`${steps.count} steps passed, ${isPassed ? 0 : 1} failed (${seconds} s)`);
process.exit(isPassed ? 0 : 1);
