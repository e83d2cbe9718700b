// Runs a command line strictly: citty describes the commands and prints their help, but would let unknown flags,
// missing values and stray arguments pass.

import { type ArgsDef, type CommandDef, renderUsage } from "citty";
import { EXIT, type ExitCode, ExitError, messageOf } from "../shared/errors.ts";
import { writeOut } from "./write-out.ts";

export type FlagValues = Readonly<Record<string, string | boolean | readonly string[] | undefined>>;

/** A citty command whose `run` gets what was checked here, and ends with an exit code. */
export interface StrictCommand {
  readonly meta: { readonly name: string; readonly description: string };
  readonly args?: ArgsDef;
  /** Flags that may be given more than once; their value is a list. */
  readonly repeatable?: readonly string[];
  /** Variables that it reads, with their meanings; for its help. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Ends its help. */
  readonly note?: string;
  /** Loaded when asked for. */
  readonly subCommands?: Readonly<Record<string, () => Promise<StrictCommand>>>;
  run(flags: FlagValues): Promise<ExitCode>;
}

/** What a command finds wrong with how it was called; the message comes to name the help of that command. */
export class Misuse extends Error {
  override readonly name = "Misuse";
}

/** A command that only stands before others. */
export function commandGroup(
  path: string,
  description: string,
  subCommands: NonNullable<StrictCommand["subCommands"]>,
): StrictCommand {
  return {
    meta: { name: path, description },
    subCommands,
    run: () => Promise.reject(new Misuse(`name one of ${Object.keys(subCommands).join(", ")}`)),
  };
}

/** Errors go to stderr; stdout belongs to the command. */
export async function runCli(
  name: string,
  root: StrictCommand,
  rawArgs: readonly string[],
  write: (text: string) => void = writeOut,
): Promise<ExitCode> {
  try {
    const { command, path, rest } = await findCommand(name, root, rawArgs);
    if (rest.includes("--help") || rest.includes("-h")) {
      write(await usageOf(command, path));
      return EXIT.done;
    }
    return await naming(path, command.run(parseFlags(rest, command, path)));
  } catch (error) {
    if (!(error instanceof ExitError)) {
      process.stderr.write(`${name}: unexpected failure: ${(error as Error)?.stack ?? messageOf(error)}\n`);
      return EXIT.failed;
    }
    process.stderr.write(`${name}: ${error.message}\n`);
    return error.exitCode;
  }
}

async function naming(path: string, running: Promise<ExitCode>): Promise<ExitCode> {
  try {
    return await running;
  } catch (error) {
    throw error instanceof Misuse ? usageError(error.message, path) : error;
  }
}

/** Follows the words of the command line down the tree of commands; `help` before one asks for its help. */
async function findCommand(
  path: string,
  command: StrictCommand,
  rawArgs: readonly string[],
): Promise<{ command: StrictCommand; path: string; rest: readonly string[] }> {
  const [first, ...others] = rawArgs;
  const { subCommands } = command;
  if (subCommands === undefined || first === undefined || first.startsWith("-"))
    return { command, path, rest: rawArgs };
  const load = Object.hasOwn(subCommands, first) ? subCommands[first] : undefined;
  if (load === undefined && first === "help") return findCommand(path, command, [...others, "--help"]);
  if (load === undefined) throw usageError(`there is no command "${first}"`, path);
  return findCommand(`${path} ${first}`, await load(), others);
}

/** @throws ExitError (2) for anything that was not asked for or lacks its value */
export function parseFlags(rawArgs: readonly string[], command: StrictCommand, path: string): FlagValues {
  const args = command.args ?? {};
  const positionals = Object.keys(args).filter((name) => args[name]!.type === "positional");
  const values: Record<string, string | boolean | string[]> = {};
  for (let at = 0; at < rawArgs.length; at++) {
    const arg = rawArgs[at]!;
    // "-" stands for standard input or output.
    if (!arg.startsWith("-") || arg === "-") {
      const name = positionals.shift();
      if (name === undefined) throw usageError(`"${arg}" is one argument too many`, path);
      values[name] = arg;
      continue;
    }
    const [, name = "", attached] = /^--?([^=]+)(?:=([\s\S]*))?$/.exec(arg) ?? [];
    const definition = Object.hasOwn(args, name) ? args[name] : undefined;
    if (definition === undefined || definition.type === "positional") {
      throw usageError(`there is no flag ${arg.split("=")[0]}`, path);
    }
    const isRepeatable = command.repeatable?.includes(name) ?? false;
    if (name in values && !isRepeatable) throw usageError(`--${name} is given twice`, path);
    if (definition.type === "boolean") {
      if (attached !== undefined) throw usageError(`--${name} takes no value`, path);
      values[name] = true;
      continue;
    }
    const value = attached ?? rawArgs[++at];
    // A flag is never the value of another: "--secret --expires-in 1h" is a forgotten value.
    if (value === undefined || (attached === undefined && value.startsWith("-") && value !== "-")) {
      throw usageError(`--${name} lacks its value`, path);
    }
    if (definition.type === "enum" && !definition.options!.includes(value)) {
      throw usageError(`--${name} takes ${definition.options!.join(", ")}`, path);
    }
    values[name] = isRepeatable ? [...((values[name] as string[] | undefined) ?? []), value] : value;
  }
  for (const [name, definition] of Object.entries(args)) {
    if (definition.required === true && !(name in values)) {
      throw usageError(
        definition.type === "positional" ? `${name.toUpperCase()} is not given` : `--${name} is missing`,
        path,
      );
    }
  }
  return values;
}

function usageError(problem: string, path: string): ExitError {
  return new ExitError(EXIT.usage, `${problem}. See ${path} --help.`);
}

async function usageOf(command: StrictCommand, path: string): Promise<string> {
  const { subCommands } = command;
  const described: CommandDef = { meta: { ...command.meta, name: path }, args: command.args ?? {} };
  if (subCommands !== undefined) {
    const loaded = Object.entries(subCommands).map(async ([name, load]) => {
      const { meta } = await load();
      return [name, { meta: { ...meta } }] as const;
    });
    described.subCommands = Object.fromEntries(await Promise.all(loaded));
  }
  const usage = `${(await renderUsage(described)).trimEnd()}\n${environmentText(command)}`;
  return process.stdout.isTTY ? usage : Bun.stripANSI(usage);
}

/** In the form of the parts above it. */
function environmentText({ environment = {}, note }: StrictCommand): string {
  const width = Math.max(...Object.keys(environment).map((name) => name.length));
  const lines = Object.entries(environment).map(([name, meaning]) => `  ${name.padStart(width)}    ${meaning}\n`);
  const variables = lines.length === 0 ? "" : `\nENVIRONMENT\n\n${lines.join("")}`;
  return note === undefined ? variables : `${variables}\n${note}\n`;
}
