// Where threads of stores in tests begin: at their source, or at a bundle of it that a run of all tests has made.

const SOURCES = {
  /** The server's own threads. */
  app: new URL("../../src/app/thread-entry.ts", import.meta.url),
  /** Those of a store whose jobs are those of tests. */
  jobs: new URL("./job-units-thread.ts", import.meta.url),
} as const;

/**
 * The folder of the bundles. From source each thread reads and compiles its hundreds of files anew, and runs the
 * migrations that the schema of a new store is found out by: more work than most tests give it.
 */
const FOLDER = process.env.GOKV_TEST_THREADS;

export function threadEntry(name: keyof typeof SOURCES): URL {
  return FOLDER === undefined ? SOURCES[name] : Bun.pathToFileURL(`${FOLDER}/${name}.js`);
}

/** What tests are to be given as `GOKV_TEST_THREADS`. @throws AggregateError if it cannot be built */
export async function bundleThreads(folder: string): Promise<void> {
  for (const [name, { pathname }] of Object.entries(SOURCES)) {
    const naming = { entry: `${name}.[ext]`, chunk: `${name}-[hash].[ext]` };
    await Bun.build({ entrypoints: [pathname], outdir: folder, target: "bun", splitting: true, naming });
  }
}
