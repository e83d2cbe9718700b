// Commands that each ask a running server one thing and print its answer.

import type { ArgsDef } from "citty";
import { LIFETIME_MS_MAX } from "../shared/bounds.ts";
import { systemClock } from "../shared/clock.ts";
import { parseDurationMs } from "../shared/durations.ts";
import { EXIT, ExitError } from "../shared/errors.ts";
import { AdminClient, type Answer, CLIENT_ENVIRONMENT, type Need } from "./admin-client.ts";
import { commandGroup, type FlagValues, Misuse, type StrictCommand } from "./run-cli.ts";
import { writeOut } from "./write-out.ts";

const COMMON: ArgsDef = {
  url: { type: "string", description: "The server; default GOKV_URL or this machine" },
  json: { type: "boolean", description: "Print the server's JSON" },
};

type Ask = (client: AdminClient, flags: FlagValues, id: string) => Promise<Answer>;

/** What a verb acts on: its positional argument. */
export interface Target {
  readonly name: string;
  readonly description: string;
  readonly isOptional?: boolean;
  /** It must be a number from 1, as the server counts. */
  readonly isNumber?: boolean;
}

export interface Verb {
  readonly description: string;
  readonly target?: Target;
  readonly args?: ArgsDef;
  /** Without any of `args` there is nothing to do. */
  readonly isUpdate?: boolean;
  readonly ask: Ask;
  /** What to print instead of the whole answer. */
  readonly show?: (answer: Answer) => string;
  /** The server did what it was asked for, and this is what it found. */
  readonly hasFailed?: (answer: NonNullable<Answer>) => boolean;
}

/** Commands that ask a server, and groups of them. */
export function clientGroup(
  path: string,
  description: string,
  subCommands: NonNullable<StrictCommand["subCommands"]>,
): StrictCommand {
  return { ...commandGroup(path, description, subCommands), environment: CLIENT_ENVIRONMENT };
}

/** `repeatable` are flags that may be given more than once. */
export function verbGroup(
  path: string,
  description: string,
  need: Need,
  verbs: Readonly<Record<string, Verb>>,
  repeatable: readonly string[] = [],
): StrictCommand {
  const commands = Object.entries(verbs).map(
    ([verb, definition]) => [verb, async () => verbCommand(`${path} ${verb}`, need, definition, repeatable)] as const,
  );
  return clientGroup(path, description, Object.fromEntries(commands));
}

export function verbCommand(
  path: string,
  need: Need,
  { description, target, args = {}, isUpdate = false, ask, show = describe, hasFailed = () => false }: Verb,
  repeatable: readonly string[] = [],
): StrictCommand {
  const positional: ArgsDef =
    target === undefined
      ? {}
      : {
          [target.name]: {
            type: "positional",
            required: target.isOptional !== true,
            description: target.description,
          },
        };
  return {
    meta: { name: path, description },
    args: { ...positional, ...args, ...COMMON },
    environment: CLIENT_ENVIRONMENT,
    repeatable,
    async run(flags) {
      const id = target === undefined ? "" : requireTarget(target, flags);
      const changes = Object.keys(args);
      if (isUpdate && !changes.some((name) => name in flags)) {
        throw new Misuse(`nothing to change: give one of ${changes.map((name) => `--${name}`).join(", ")}`);
      }
      refuseEmptyItems(flags, repeatable);
      const client = await AdminClient.open(flags.url as string | undefined, process.env, need);
      const answer = await namingFlags(changes, ask(client, flags, id));
      // Not among the output: scripts take that for what they asked for.
      if (typeof answer?.warning === "string") process.stderr.write(`gokv: warning: ${answer.warning}\n`);
      writeOut(flags.json === true ? `${JSON.stringify(answer)}\n` : show(answer));
      const rest = restOf(answer, client.headers, flags);
      if (rest !== null) process.stderr.write(`more: ${rest}\n`);
      return answer !== null && hasFailed(answer) ? EXIT.failed : EXIT.done;
    },
  };
}

/** What the server calls a member that a flag is for, where the flag is not its name with hyphens. */
const FLAGS: Readonly<Record<string, string>> = {
  deviceUuid: "device",
  appId: "app",
  permissionPrefix: "prefix",
  permissionKey: "grant",
  allow_ips: "allow-ip",
  remain_quota: "quota",
  expired_time: "expires-in",
  expiresAt: "expires-in",
};

/** A refusal names a member of the body; here it is named as it can be given. Throws what `asked` throws. */
async function namingFlags(flags: readonly string[], asked: Promise<Answer>): Promise<Answer> {
  try {
    return await asked;
  } catch (error) {
    if (!(error instanceof ExitError)) throw error;
    const message = error.message.replace(
      /^(the server refused: )(\w+)(?:\.\d+)?(?=: | is missing)/,
      (text, start, member) => {
        const flag = FLAGS[member] ?? member.replaceAll("_", "-");
        return flags.includes(flag) ? `${start}--${flag}` : text;
      },
    );
    throw new ExitError(error.exitCode, message);
  }
}

/** An empty item is a variable of the shell that was not set, rather than a wish. @throws Misuse */
function refuseEmptyItems(flags: FlagValues, names: readonly string[]): void {
  const empty = names.find((name) => (flags[name] as readonly string[] | undefined)?.includes(""));
  if (empty !== undefined) throw new Misuse(`--${empty} is empty`);
}

/** @throws Misuse */
function requireTarget({ name, isNumber = false }: Target, flags: FlagValues): string {
  const id = (flags[name] as string | undefined) ?? "";
  if (isNumber && !/^[1-9]\d{0,14}$/.test(id)) throw new Misuse(`${name} "${id}" is not a number from 1`);
  return id;
}

/** When what is made or changed now ends, ms since 1970; null = never, undefined = nothing is said. @throws Misuse */
export function expiryMs(flags: FlagValues): number | null | undefined {
  requireOneAtMost(flags, "expires-in", "never-expires");
  if (flags["never-expires"] === true) return null;
  const text = flags["expires-in"] as string | undefined;
  if (text === undefined) return undefined;
  const ms = parseDurationMs(text);
  if (ms === null || ms <= 0 || ms > LIFETIME_MS_MAX) {
    throw new Misuse(`--expires-in "${text}" is not a duration up to 36500d, such as 90d`);
  }
  return systemClock() + ms;
}

/** True or false as one of two flags was given, undefined without either. @throws Misuse */
export function oneOrOther(flags: FlagValues, on: string, off: string): boolean | undefined {
  requireOneAtMost(flags, on, off);
  return flags[on] === true ? true : flags[off] === true ? false : undefined;
}

/** @throws Misuse */
export function requireOneAtMost(flags: FlagValues, one: string, other: string): void {
  if (one in flags && other in flags) throw new Misuse(`give one of --${one} and --${other}`);
}

/** Where secretOf takes a secret from, for the help. */
export const SECRET_FROM = "or - to read it from standard input, where no list of processes shows it";

/** What stands in the line, or on standard input without its line end. */
export async function secretOf(flag: FlagValues[string]): Promise<string | undefined> {
  return flag === "-" ? (await Bun.stdin.text()).replace(/\r?\n$/, "") : (flag as string | undefined);
}

export function query(flags: FlagValues, names: readonly string[]): string {
  const pairs = names
    .filter((name) => name in flags)
    .map((name) => `${name.replaceAll("-", "_")}=${encodeURIComponent(String(flags[name]))}`);
  return pairs.length === 0 ? "" : `?${pairs.join("&")}`;
}

/** Rows of a list, or the fields of one thing, as aligned text. */
function describe(answer: Answer): string {
  if (answer === null) return "";
  if (Array.isArray(answer)) return answer.map(fieldsText).join("\n");
  if (!Array.isArray(answer.items)) return fieldsText(answer);
  return (answer.items as Record<string, unknown>[]).map(fieldsText).join("\n");
}

/** The flag that goes on behind a page, as its list tells it: by a cursor, or by a total. Null when nothing is left. */
function restOf(answer: Answer, headers: Headers, flags: FlagValues): string | null {
  const cursor = Array.isArray(answer) ? headers.get("X-Next-Cursor") : answer?.nextCursor;
  if (typeof cursor === "string") return `--cursor ${cursor}`;
  if (!Array.isArray(answer)) return null;
  const end = Number(flags.offset ?? 0) + answer.length;
  return end < Number(headers.get("X-Total-Count")) ? `--offset ${end}` : null;
}

function fieldsText(fields: Record<string, unknown>): string {
  const width = Math.max(...Object.keys(fields).map((name) => name.length));
  return Object.entries(fields)
    .map(([name, value]) => `${name.padEnd(width)}  ${typeof value === "string" ? value : JSON.stringify(value)}\n`)
    .join("");
}
