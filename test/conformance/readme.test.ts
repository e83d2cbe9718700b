// The README's examples, pasted: every command is run, and what it prints is compared with what the README shows.

import { describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { EXIT } from "../../src/shared/errors.ts";
import { cleanEnv, GOKV, ROOT, run } from "../support/executable.ts";
import { freePort } from "../support/free-port.ts";
import { has, hasProgram } from "../support/needs.ts";
import { SECRET } from "../support/targets.ts";
import { tempDir } from "../support/temp-dir.ts";

interface Example {
  readonly command: string;
  readonly expected: string;
}

/** All blocks of one kind in the README, one after the other. */
function readBlocks(kind: "console" | "sh"): string {
  const readme = readFileSync(join(ROOT, "README.md"), "utf8");
  return [...readme.matchAll(/^```(\w+)\n([\s\S]*?)^```$/gm)]
    .filter(([, name]) => name === kind)
    .map(([, , text]) => text)
    .join("");
}

/** The lines of the README's console blocks: `$ command`, then its output, in which … stands for anything. */
function readExamples(): Example[] {
  return readBlocks("console")
    .split(/^\$ /m)
    .slice(1)
    .map((text) => {
      const [command = "", ...output] = text.trimEnd().split("\n");
      return { command, expected: output.join("\n") };
    });
}

/** One shell runs all commands in the order of the README; a mark separates their outputs. */
async function runInShell(examples: readonly Example[], cwd: string): Promise<string[]> {
  const mark = `@@${crypto.randomUUID()}@@`;
  const [port, mockPort] = [freePort(), freePort()];
  const script = examples
    .map(({ command }) => command.replaceAll("localhost:8080", `127.0.0.1:${port}`).replaceAll("4010", `${mockPort}`))
    .join(`\nprintf '${mark}'\n`);
  const shell = Bun.spawn(["bash", "-c", script], {
    cwd,
    env: cleanEnv({ PORT: `${port}`, HOST: "127.0.0.1", PATH: `${join(ROOT, "dist")}:${process.env.PATH}` }),
    stdout: "pipe",
    stderr: "pipe",
  });
  const [output, problems] = await Promise.all([new Response(shell.stdout).text(), new Response(shell.stderr).text()]);
  expect(problems).toBe("");
  return output.split(mark).map((text) => text.replaceAll("\r", "").trimEnd());
}

function pattern(expected: string): RegExp {
  const parts = expected.split("…").map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`^${parts.join("[\\s\\S]*")}$`);
}

describe("the README", () => {
  test("shows commands that give the shown output", async () => {
    using dir = tempDir();
    const examples = readExamples();
    expect(examples.length).toBeGreaterThan(20);
    const outputs = await runInShell(examples, dir.path);
    for (const [index, { command, expected }] of examples.entries()) {
      expect(outputs[index] ?? "", command).toMatch(pattern(expected));
    }
  });

  test("shows tokens that are made as they are asked for", async () => {
    using dir = tempDir();
    const commands = readBlocks("sh").match(/^jwt-gen .*$/gm) ?? [];
    expect(commands).toHaveLength(3);
    const env = { JWT_SECRET: SECRET, PATH: `${join(ROOT, "dist")}:${process.env.PATH}` };
    const finished = await Promise.all(commands.map((command) => run(["bash", "-c", command], { env, cwd: dir.path })));
    for (const [index, command] of commands.entries()) {
      const token = expect.stringMatching(/^eyJ[\w-]+\.[\w-]+\.[\w-]{43}\n$/);
      expect({ command, ...finished[index]! }).toEqual({ command, exitCode: 0, stdout: token, stderr: "" });
    }
  });

  test("shows a unit of systemd that tries again until the store is free, and not where that is in vain", async () => {
    const unit = /gokv\.service <<'END'\n([\s\S]*?)^END$/m.exec(readFileSync(join(ROOT, "README.md"), "utf8"))![1]!;
    const valuesOf = (name: string) => [...unit.matchAll(new RegExp(`^${name}=(.*)$`, "gm"))].map(([, value]) => value);
    expect(valuesOf("Restart")).toEqual(["on-failure"]);
    expect(valuesOf("RestartPreventExitStatus")).toEqual([`${EXIT.usage} ${EXIT.storeDamaged}`]);
    // Without it the fifth start within ten seconds would be the last.
    expect(valuesOf("StartLimitIntervalSec")).toEqual(["0"]);
    expect(valuesOf("RestartSec")).toEqual(["2s"]);
    if (!has("systemd-analyze", hasProgram("systemd-analyze"))) return;
    using dir = tempDir();
    writeFileSync(dir.file("gokv.service"), unit.replace("/usr/local/bin/gokv", GOKV));
    const finished = await run(["systemd-analyze", "verify", "--man=no", dir.file("gokv.service")]);
    expect(finished).toEqual({ exitCode: 0, stdout: "", stderr: "" });
  });

  test("explains building, running, every setting, tokens, and the four operations with curl", () => {
    const readme = readFileSync(join(ROOT, "README.md"), "utf8");
    for (const needle of ["bun run build", "npm start", "jwt-gen", "JWT_SECRET", "-X POST", "-X DELETE", "/_list"]) {
      expect(readme).toContain(needle);
    }
  });
});
