// The code's own rules, as a test: who may import whom, what stands where, how long things may get.

import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { basename, dirname, join, relative } from "node:path";
import { SETTINGS } from "../src/shared/settings.ts";

const ROOT = join(import.meta.dir, "..");

/** From top to bottom: a folder imports itself and folders below it, never above. */
const FOLDERS = ["cli", "app", "task", "relay", "token", "kv", "jobs", "http", "auth", "limits", "storage", "shared"];

/** Packages that only these files may import. */
const PACKAGE_PLACES: Readonly<Record<string, RegExp>> = {
  hono: /^src\/(http\/|app\/create-app\.ts|\w+\/[\w-]+-routes\.ts)/,
  citty: /^src\/cli\//,
  jose: /^src\/auth\//,
  "lru-cache": /^src\/limits\//,
  kysely: /^src\/(storage\/|\w+\/[\w-]+-(store|tables|units)\.ts)/,
  zod: /^src\/(http\/openapi\.ts|\w+\/[\w-]+-(routes|bodies)\.ts)/,
  "bun:sqlite": /^src\/storage\//,
  "node:sqlite": /^src\/storage\//,
  "prom-client": /^src\/(http\/|\w+\/[\w-]+-metrics\.ts)/,
  "@logtape/logtape": /^src\/shared\//,
};

/** Where a package may be imported, or a part of it. */
function placeOf(specifier: string): RegExp | undefined {
  const [scope = "", name = ""] = specifier.split("/");
  return PACKAGE_PLACES[specifier] ?? PACKAGE_PLACES[scope.startsWith("@") ? `${scope}/${name}` : scope];
}

/** Where code begins: everything else must be reached from here. */
const ENTRIES = ["src/cli/gokv.ts", "src/app/thread-entry.ts"];

/**
 * Who may open files through the file API. gokv.db, its log and lock.db must never be among them once SQLite has them
 * open: closing the descriptor would drop SQLite's locks.
 */
const FILE_READERS: Readonly<Record<string, string>> = {
  "src/storage/inspect-store.ts": "before SQLite opens anything, under the store lock",
  "src/storage/backup-store.ts": "makes its own draft",
  "src/storage/sync-path.ts": "syncs finished copies and directories",
  "src/storage/space-reserve.ts": "the reserve file",
  "src/storage/import-entries.ts": "export files",
  "src/storage/kept-store.ts": "empties the drafts of restores",
  "src/storage/spare-descriptors.ts": "the null device",
  "src/storage/given-file.ts": "copies a backup, which no SQLite has open",
  "src/shared/settings.ts": "secret files",
  "src/cli/jwt-gen-command.ts": "secret files",
  "src/cli/store-commands.ts": "standard input put aside",
  "src/app/dev-mode.ts": "the development secret",
  "src/http/threadless-lookup.ts": "the system's list of name servers",
};
const OPENS_FILES =
  /\b(openSync|readFileSync|createReadStream|createWriteStream|copyFileSync|writeFileSync)\(|"node:fs\/promises"/;

const LINE_LENGTH_MAX = 120;
const FUNCTION_LINES_MAX = 70;

interface SourceFile {
  readonly path: string;
  readonly text: string;
  readonly lines: readonly string[];
  /** Module specifiers, type-only, re-exported and dynamic ones too. */
  readonly imports: readonly string[];
}

function readSources(pattern: string): SourceFile[] {
  return [...new Bun.Glob(pattern).scanSync({ cwd: ROOT })].sort().map((path) => {
    const text = readFileSync(join(ROOT, path), "utf8");
    const specifiers = /^(?:import|export)\b[^;"]*?\bfrom "([^"]+)"|^import "([^"]+)"|\bimport\("([^"]+)"\)/gm;
    const imports = [...text.matchAll(specifiers)].map((match) => (match[1] ?? match[2] ?? match[3])!);
    return { path, text, lines: text.split("\n"), imports };
  });
}

const SOURCES = readSources("src/**/*.ts");
const ALL = [...SOURCES, ...readSources("test/**/*.ts"), ...readSources("scripts/**/*.ts")];

function resolveImport(file: SourceFile, specifier: string): string {
  return relative(ROOT, join(ROOT, dirname(file.path), specifier));
}

function folderOf(path: string): string {
  return path.split("/")[1]!;
}

describe("the shape of the source", () => {
  test("folders are known and two levels deep", () => {
    const odd = SOURCES.filter(({ path }) => path.split("/").length !== 3 || !FOLDERS.includes(folderOf(path)));
    expect(odd.map(({ path }) => path)).toEqual([]);
  });

  test("a folder imports itself and folders below it only", () => {
    const upward = SOURCES.flatMap((file) =>
      file.imports
        .filter((specifier) => specifier.startsWith("."))
        .map((specifier) => resolveImport(file, specifier))
        .filter((target) => target.startsWith("src/"))
        .filter((target) => FOLDERS.indexOf(folderOf(target)) < FOLDERS.indexOf(folderOf(file.path)))
        .map((target) => `${file.path} → ${target}`),
    );
    expect(upward).toEqual([]);
  });

  test("a package is imported where it belongs", () => {
    const strays = SOURCES.flatMap(({ path, imports }) =>
      imports.filter((name) => placeOf(name)?.test(path) === false).map((name) => `${path} → ${name}`),
    );
    const unknown = SOURCES.flatMap(({ path, imports }) =>
      imports
        .filter((name) => !name.startsWith(".") && !name.startsWith("node:") && name !== "bun")
        .filter((name) => placeOf(name) === undefined)
        .map((name) => `${path} → ${name}`),
    );
    expect([...strays, ...unknown]).toEqual([]);
  });

  test("every dependency is used and every file is reached from an entry", () => {
    const reached = new Set<string>();
    const visit = (path: string) => {
      if (reached.has(path)) return;
      reached.add(path);
      const file = SOURCES.find((source) => source.path === path);
      for (const specifier of file?.imports ?? [])
        if (specifier.startsWith(".")) visit(resolveImport(file!, specifier));
    };
    for (const entry of ENTRIES) visit(entry);
    expect(SOURCES.map(({ path }) => path).filter((path) => !reached.has(path))).toEqual([]);
    const manifest = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
    const used = new Set(SOURCES.flatMap(({ imports }) => imports));
    expect(Object.keys(manifest.dependencies).filter((name) => !used.has(name))).toEqual([]);
  });

  test("what a file exports is used by another one, which imports it from there", () => {
    const exported = /^export (?:async |abstract )*(?:function\*?|class|const|interface|type|enum) (\w+)/gm;
    const importersOf = Map.groupBy(
      ALL.flatMap((file) => file.imports.map((specifier) => ({ file, target: resolveImport(file, specifier) }))),
      ({ target }) => target,
    );
    const unused = SOURCES.flatMap((file) => {
      const importers = (importersOf.get(file.path) ?? []).map((imported) => imported.file);
      return [...file.text.matchAll(exported)]
        .map(([, name]) => name!)
        .filter((name) => !importers.some(({ text }) => new RegExp(`\\b${name}\\b`).test(text)))
        .map((name) => `${file.path}: ${name}`);
    });
    expect(unused).toEqual([]);
    expect(SOURCES.filter(({ text }) => /^export (?:type )?[{*]/m.test(text)).map(({ path }) => path)).toEqual([]);
  });

  test("no files import each other in a circle, not even for their types", () => {
    const files = new Map(SOURCES.map((file) => [file.path, file]));
    const done = new Set<string>();
    const circles: string[] = [];
    const visit = (path: string, way: readonly string[]) => {
      if (way.includes(path)) circles.push([...way.slice(way.indexOf(path)), path].join(" → "));
      const file = files.get(path);
      if (file === undefined || done.has(path) || way.includes(path)) return;
      for (const specifier of file.imports) visit(resolveImport(file, specifier), [...way, path]);
      done.add(path);
    };
    for (const path of files.keys()) visit(path, []);
    expect(circles).toEqual([]);
  });

  test("no two files share a name", () => {
    const names = ALL.map(({ path }) => basename(path));
    expect(names.filter((name, index) => names.indexOf(name) !== index)).toEqual([]);
  });

  test("SQL stays in the storage drivers", () => {
    const sql = /\b(SELECT .* FROM|INSERT INTO|DELETE FROM|UPDATE \w+ SET|PRAGMA )\b/;
    const strays = SOURCES.filter(({ path, text }) => !/^src\/storage\/|-store\.ts$/.test(path) && sql.test(text));
    expect(strays.map(({ path }) => path)).toEqual([]);
  });

  test("only listed files open files", () => {
    const openers = SOURCES.filter(({ text }) => OPENS_FILES.test(text));
    expect(openers.map(({ path }) => path).filter((path) => !(path in FILE_READERS))).toEqual([]);
    expect(SOURCES.filter(({ text }) => text.includes("Bun.file(")).map(({ path }) => path)).toEqual([]);
  });
});

describe("the form of the files", () => {
  test("each begins with a sentence that says why it exists", () => {
    const silent = ALL.filter(({ lines }) => !/^\/\/ \S+ \S+ \S+/.test(lines[0]!));
    expect(silent.map(({ path }) => path)).toEqual([]);
  });

  test("lines fit", () => {
    const long = ALL.flatMap(({ path, lines }) =>
      lines
        .map((line, index) => [line, `${path}:${index + 1}`] as const)
        .filter(([line]) => line.length > LINE_LENGTH_MAX),
    );
    expect(long.map(([, place]) => place)).toEqual([]);
  });

  test("functions fit a screen", () => {
    const start = /^( *)(?:export |static |async |get |private )*(?:function\*? ?)?[#\w]+(?:<.*>)?\(.*\{$/;
    const long = SOURCES.flatMap(({ path, lines }) =>
      lines.flatMap((line, index) => {
        const indent = start.exec(line)?.[1];
        if (indent === undefined) return [];
        const end = lines.findIndex((candidate, at) => at > index && [`${indent}}`, `${indent}},`].includes(candidate));
        return end - index > FUNCTION_LINES_MAX ? [`${path}:${index + 1} has ${end - index} lines`] : [];
      }),
    );
    expect(long).toEqual([]);
  });

  test("nothing is left to do and no test is left out", () => {
    const marks = new RegExp(`\\b(TO${"DO"}|FIX${"ME"})\\b|\\b(test|describe)\\.(only|sk${"ip"}|to${"do"})\\(`);
    expect(ALL.filter(({ text }) => marks.test(text)).map(({ path }) => path)).toEqual([]);
  });
});

describe("the documents", () => {
  const readme = readFileSync(join(ROOT, "README.md"), "utf8");

  test("the README's table of settings is the one of the program", () => {
    const rows = [...readme.matchAll(/^\| `([A-Z_]+)` \| (.*?) \| (.*?) \|$/gm)].map(([, env, fallback, meaning]) => ({
      env,
      fallback,
      meaning,
    }));
    const expected = Object.values(SETTINGS).map(({ env, fallback, meaning }) => ({
      env,
      fallback: fallback === null ? "–" : `\`${fallback}\``,
      meaning,
    }));
    expect(rows).toEqual(expected);
  });

  test("ARCHITECTURE.md names every folder and every dependency", () => {
    const text = readFileSync(join(ROOT, "ARCHITECTURE.md"), "utf8");
    const manifest = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8"));
    const names = [...FOLDERS.map((folder) => `\`${folder}/\``), ...Object.keys(manifest.dependencies)];
    expect(names.filter((name) => !text.includes(name))).toEqual([]);
  });
});
