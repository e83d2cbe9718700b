// Builds dist/gokv, one executable that holds everything, and dist/jwt-gen, a link to it. Same input, same bytes.

import { rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dir, "..");
const out = process.argv[2] ?? join(root, "dist");

// Without the two no-autoload flags the executable would read a .env and run the preload of a bunfig.toml in the
// directory it is started in. The exec argument refuses code made from strings, which closes BUN_OPTIONS=--preload too.
// Never strip the result: that turns it back into a plain Bun.
const build = Bun.spawnSync(
  [
    process.execPath,
    "build",
    "--compile",
    "--production",
    "--bytecode",
    "--format=esm",
    "--sourcemap",
    "--no-compile-autoload-dotenv",
    "--no-compile-autoload-bunfig",
    "--compile-exec-argv=--disallow-code-generation-from-strings=strict",
    "src/cli/gokv.ts",
    "--outfile",
    join(out, "gokv"),
  ],
  { cwd: root, stdout: "pipe", stderr: "inherit" },
);
if (build.exitCode !== 0) {
  process.stderr.write(build.stdout.toString());
  process.exit(1);
}
// The source map is inside the executable; the file beside it is for nobody.
rmSync(join(out, "gokv.js.map"), { force: true });
rmSync(join(out, "gokv.map"), { force: true });
rmSync(join(out, "jwt-gen"), { force: true });
symlinkSync("gokv", join(out, "jwt-gen"));
const executable = Bun.file(join(out, "gokv"));
const sha256 = new Bun.CryptoHasher("sha256").update(await executable.arrayBuffer()).digest("hex");
console.log(`${join(out, "gokv")}  ${(executable.size / 1e6).toFixed(1)} MB  sha256 ${sha256}`);
