// Stands in for the Dockerfile's two base images with images made of Debian packages: no container registry is needed.

import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import type { Buildah } from "./buildah.ts";
import { requireTool, runTool } from "./run-tool.ts";

/** Full names, or they would not be found without asking a registry. */
const BUILDER_TAG = `docker.io/oven/bun:${Bun.version}`;
const RUNTIME_TAG = "gcr.io/distroless/base-nossl-debian12:nonroot";

/** What the distroless image is made of. */
const RUNTIME_PACKAGES = ["base-files", "ca-certificates", "libc6", "netbase", "tzdata"];
/** A shell and its tools, as far as the RUN lines need them, with the libraries these need. */
const SHELL_PACKAGES = ["coreutils", "dash", "libacl1", "libattr1", "libgmp10", "libpcre2-8-0", "libselinux1"];
const NONROOT = 65_532;
const CERTIFICATES = "etc/ssl/certs/ca-certificates.crt";
const SEARCH_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** Fetches the packages from the machine's own Debian mirror into `folder`. */
export async function downloadPackages(folder: string, signal: AbortSignal): Promise<void> {
  mkdirSync(folder, { recursive: true });
  const names = [...RUNTIME_PACKAGES, ...SHELL_PACKAGES];
  const download = (...options: string[]) =>
    ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", ...options, "download", ...names] as const;
  if ((await runTool(download(), { cwd: folder, signal })).exitCode === 0) return;
  // No package lists, or older ones than the mirror: fresh ones, for this run alone.
  const lists = join(folder, "lists");
  mkdirSync(lists);
  const ownLists = ["-o", `Dir::State::lists=${lists}`];
  await requireTool(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", ...ownLists, "update"], { signal });
  await requireTool(download(...ownLists), { cwd: folder, signal });
}

/** The last stage's base: glibc, time zones, certificates, no shell. Returns the folder with its files. */
export async function buildRuntimeStandIn(buildah: Buildah, folder: string, packages: string): Promise<string> {
  const rootfs = join(folder, "rootfs");
  await unpack(RUNTIME_PACKAGES, packages, rootfs);
  const home = join(rootfs, "home/nonroot");
  mkdirSync(home);
  chmodSync(home, 0o700);
  chownSync(home, NONROOT, NONROOT);
  await pack(rootfs);
  writeFileSync(
    join(folder, "Dockerfile"),
    `FROM scratch
ADD rootfs.tar /
ENV ${SEARCH_PATH} SSL_CERT_FILE=/${CERTIFICATES}
USER ${NONROOT}
WORKDIR /home/nonroot
`,
  );
  await buildah.build(folder, RUNTIME_TAG);
  return rootfs;
}

/** The first stage's base: a shell, and the Bun that runs this. It trusts the certificates that this machine trusts. */
export async function buildBuilderStandIn(buildah: Buildah, folder: string, packages: string): Promise<void> {
  const rootfs = join(folder, "rootfs");
  await unpack([...RUNTIME_PACKAGES, ...SHELL_PACKAGES], packages, rootfs);
  const bin = join(rootfs, "usr/local/bin");
  mkdirSync(bin, { recursive: true });
  copyFileSync(process.execPath, join(bin, "bun"));
  chmodSync(join(bin, "bun"), 0o755);
  const { NODE_EXTRA_CA_CERTS, SSL_CERT_FILE } = process.env;
  const trusted = [NODE_EXTRA_CA_CERTS, SSL_CERT_FILE, `/${CERTIFICATES}`].find((file) => file && existsSync(file));
  if (trusted !== undefined) copyFileSync(trusted, join(rootfs, CERTIFICATES));
  await pack(rootfs);
  writeFileSync(
    join(folder, "Dockerfile"),
    `FROM scratch
ADD rootfs.tar /
ENV ${SEARCH_PATH} NODE_EXTRA_CA_CERTS=/${CERTIFICATES}
WORKDIR /home/bun/app
CMD ["/usr/local/bin/bun"]
`,
  );
  await buildah.build(folder, BUILDER_TAG);
}

async function unpack(names: readonly string[], packages: string, rootfs: string): Promise<void> {
  mkdirSync(rootfs, { recursive: true });
  const files = readdirSync(packages);
  for (const name of names) {
    const file = files.find((candidate) => candidate.startsWith(`${name}_`));
    if (file === undefined) throw new Error(`the package ${name} was not downloaded`);
    await requireTool(["dpkg-deb", "--extract", join(packages, file), rootfs]);
  }
  // What the packages' own scripts would do at installation.
  const mozilla = join(rootfs, "usr/share/ca-certificates/mozilla");
  const certificates = readdirSync(mozilla).map((file) => readFileSync(join(mozilla, file), "utf8"));
  writeFileSync(join(rootfs, CERTIFICATES), certificates.join(""));
  writeFileSync(join(rootfs, "etc/passwd"), `root:x:0:0::/root:\nnonroot:x:${NONROOT}:${NONROOT}::/home/nonroot:\n`);
  writeFileSync(join(rootfs, "etc/group"), `root:x:0:\nnonroot:x:${NONROOT}:\n`);
}

/** As an archive the files keep their owners. */
function pack(rootfs: string): Promise<string> {
  return requireTool(["tar", "--create", "--file", `${rootfs}.tar`, "--directory", rootfs, "."]);
}
