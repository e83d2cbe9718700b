// The strict reading of a command line: nothing is guessed, nothing is let pass.

import { afterEach, beforeEach, describe, expect, spyOn, test } from "bun:test";
import { type FlagValues, Misuse, parseFlags, runCli, type StrictCommand } from "../../src/cli/run-cli.ts";
import { EXIT, ExitError } from "../../src/shared/errors.ts";

const COMMAND: StrictCommand = {
  meta: { name: "paint", description: "Paints a wall" },
  args: {
    wall: { type: "positional", required: true, description: "Which wall" },
    again: { type: "positional", required: false, description: "Another one" },
    colour: { type: "string", required: true, description: "In which colour" },
    tool: { type: "enum", options: ["brush", "roller"], description: "With what" },
    layer: { type: "string", description: "A layer; may be repeated" },
    wet: { type: "boolean", description: "Do not wait" },
  },
  repeatable: ["layer"],
  run: async () => EXIT.done,
};

const parse = (...args: string[]): FlagValues => parseFlags(args, COMMAND, "paint");

function refusal(...args: string[]): string {
  try {
    parse(...args);
  } catch (error) {
    expect(error).toBeInstanceOf(ExitError);
    expect((error as ExitError).exitCode).toBe(2);
    return (error as ExitError).message;
  }
  return "";
}

describe("flags", () => {
  test("take their value in the next argument or behind an equals sign, with one dash or two", () => {
    for (const args of [["--colour", "red"], ["--colour=red"], ["-colour", "red"], ["-colour=red"]]) {
      expect(parse(...args, "north")).toEqual({ colour: "red", wall: "north" });
      expect(parse("north", ...args)).toEqual({ colour: "red", wall: "north" });
    }
  });

  test("take any text behind an equals sign", () => {
    for (const value of ["", "-1", "--wet", "a=b", "a\nb", "'\"", " "]) {
      expect(parse("north", `--colour=${value}`).colour).toBe(value);
    }
  });

  test("may be given several times only when they say so", () => {
    expect(parse("n", "--colour", "c", "--layer", "a", "--layer=b", "-layer", "a").layer).toEqual(["a", "b", "a"]);
    expect(refusal("n", "--colour", "a", "--colour", "a")).toStartWith("--colour is given twice");
    expect(refusal("n", "--colour", "a", "--wet", "--wet")).toStartWith("--wet is given twice");
  });

  test("that are unknown are refused, near misses and names of every object included", () => {
    for (const flag of [
      "--colours",
      "--color",
      "-c",
      "--COLOUR",
      "--constructor",
      "--__proto__",
      "--toString",
      "--",
      "---wet",
    ]) {
      expect(refusal("n", "--colour", "red", flag)).toStartWith(`there is no flag ${flag}.`);
    }
    expect(refusal("n", "--colour", "red", "--wall", "south")).toStartWith("there is no flag --wall");
  });

  test("are never taken for the value of another", () => {
    expect(refusal("n", "--colour", "--wet")).toStartWith("--colour lacks its value");
    expect(refusal("n", "--colour", "-1h")).toStartWith("--colour lacks its value");
    expect(refusal("n", "--colour")).toStartWith("--colour lacks its value");
    // A lone dash stands for standard input.
    expect(parse("n", "--colour", "-").colour).toBe("-");
    expect(parse("-", "--colour", "red").wall).toBe("-");
  });

  test("without a value take none", () => {
    expect(parse("n", "--colour", "red", "--wet").wet).toBe(true);
    expect(refusal("n", "--colour", "red", "--wet=no")).toStartWith("--wet takes no value");
    expect(refusal("n", "s", "--colour", "red", "--wet", "no")).toStartWith('"no" is one argument too many');
  });

  test("with a list of words take one of them", () => {
    expect(parse("n", "--colour", "red", "--tool", "roller").tool).toBe("roller");
    for (const word of ["Roller", "", "brush,roller"]) {
      expect(refusal("n", "--colour", "red", `--tool=${word}`)).toStartWith("--tool takes brush, roller");
    }
  });

  test("that are required are asked for", () => {
    expect(refusal("n")).toBe("--colour is missing. See paint --help.");
    expect(refusal("--colour", "red")).toBe("WALL is not given. See paint --help.");
    expect(refusal("a", "b", "c", "--colour", "red")).toBe('"c" is one argument too many. See paint --help.');
  });
});

describe("a command line", () => {
  let written: { out: string; err: string };
  let spies: { mockRestore(): void }[];
  beforeEach(() => {
    written = { out: "", err: "" };
    const into = (stream: "out" | "err") => (chunk: unknown) => {
      written[stream] += `${chunk}`;
      return true;
    };
    spies = [spyOn(process.stderr, "write").mockImplementation(into("err"))];
  });
  afterEach(() => {
    for (const spy of spies) spy.mockRestore();
  });

  const run = (args: readonly string[]) => runCli("house", root, args, (text) => (written.out += text));
  const ran: string[] = [];
  const root: StrictCommand = {
    meta: { name: "house", description: "Looks after a house" },
    subCommands: {
      paint: async () => COMMAND,
      fail: async () => ({
        meta: { name: "fail", description: "Fails" },
        run: () => Promise.reject(new ExitError(EXIT.storeInUse, "somebody is in")),
      }),
      misuse: async () => ({
        meta: { name: "misuse", description: "Is never right" },
        environment: { WALLS: "how many", DOOR: "open or not" },
        note: "There is more to say.",
        run: () => Promise.reject(new Misuse("this cannot be")),
      }),
      crash: async () => ({
        meta: { name: "crash", description: "Crashes" },
        run: () => Promise.reject(new Error("a defect")),
      }),
    },
    async run() {
      ran.push("house");
      return EXIT.done;
    },
  };

  test("without a command runs the one at the root", async () => {
    expect(await run([])).toBe(0);
    expect(ran).toEqual(["house"]);
  });

  test("names an unknown command on stderr and ends with 2", async () => {
    for (const name of ["pain", "Paint", "constructor", "__proto__", "toString", ""]) {
      expect(await run([name])).toBe(2);
      expect(written.err).toContain(`house: there is no command "${name}". See house --help.\n`);
    }
    expect(written.out).toBe("");
  });

  test("ends with the code of the failure, whose message goes to stderr", async () => {
    expect(await run(["fail"])).toBe(3);
    expect(written).toEqual({ out: "", err: "house: somebody is in\n" });
  });

  test("that a command finds wrong ends with 2 and refers to the help of that command", async () => {
    expect(await run(["misuse"])).toBe(2);
    expect(written).toEqual({ out: "", err: "house: this cannot be. See house misuse --help.\n" });
  });

  test("asks with help in front of a command for its help, which ends with its variables", async () => {
    expect(await run(["help", "misuse"])).toBe(0);
    expect(Bun.stripANSI(written.out)).toEndWith(
      "\n\nENVIRONMENT\n\n  WALLS    how many\n   DOOR    open or not\n\nThere is more to say.\n",
    );
    written.out = "";
    expect(await run(["help"])).toBe(0);
    expect(Bun.stripANSI(written.out)).toContain("Looks after a house");
    expect(Bun.stripANSI(written.out)).not.toContain("ENVIRONMENT");
    expect(await run(["help", "pain"])).toBe(2);
    expect(written.err).toContain('there is no command "pain"');
  });

  test("ends with 1 and a trace when there is a defect", async () => {
    expect(await run(["crash"])).toBe(1);
    expect(written.err).toStartWith("house: unexpected failure: Error: a defect\n");
    expect(written.out).toBe("");
  });

  test("shows help on stdout for the root and for each command", async () => {
    for (const flag of ["--help", "-h"]) {
      written.out = "";
      expect(await run([flag])).toBe(0);
      for (const word of ["house", "Looks after a house", "paint", "Paints a wall", "fail"]) {
        expect(Bun.stripANSI(written.out)).toContain(word);
      }
      written.out = "";
      expect(await run(["paint", flag])).toBe(0);
      for (const word of ["house paint", "Paints a wall", "--colour", "WALL", "In which colour"]) {
        expect(Bun.stripANSI(written.out)).toContain(word);
      }
    }
    expect(written.err).toBe("");
    expect(ran).toEqual(["house"]);
  });
});
