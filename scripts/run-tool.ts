// Runs a program to its end; one that fails becomes an error that shows what the program printed.

export interface Finished {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface ToolOptions {
  readonly cwd?: string;
  readonly env?: Record<string, string | undefined>;
  /** Ends the program early. */
  readonly signal?: AbortSignal;
  /** Gets each line of stdout as it comes. */
  readonly onLine?: (line: string) => void;
}

/** Runs `command` and returns how it ended, whatever the exit code. */
export async function runTool(command: readonly string[], options: ToolOptions = {}): Promise<Finished> {
  const { onLine, signal, cwd } = options;
  const child = Bun.spawn([...command], {
    env: options.env ?? process.env,
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    ...(cwd === undefined ? {} : { cwd }),
    ...(signal === undefined ? {} : { signal }),
  });
  const [stdout, stderr, exitCode] = await Promise.all([
    readLines(child.stdout, onLine),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  signal?.throwIfAborted();
  return { exitCode, stdout, stderr };
}

/** @throws Error with the output of `command`, unless its exit code is 0 */
export async function requireTool(command: readonly string[], options: ToolOptions = {}): Promise<string> {
  const { exitCode, stdout, stderr } = await runTool(command, options);
  if (exitCode === 0) return stdout;
  throw new Error(`${command.join(" ")}\nended with exit code ${exitCode}:\n${stdout}${stderr}`);
}

async function readLines(stream: ReadableStream<Uint8Array>, onLine?: (line: string) => void): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  let lineStart = 0;
  for await (const chunk of stream) {
    text += decoder.decode(chunk, { stream: true });
    for (let end = text.indexOf("\n", lineStart); end !== -1; end = text.indexOf("\n", lineStart)) {
      onLine?.(text.slice(lineStart, end));
      lineStart = end + 1;
    }
  }
  return text;
}
