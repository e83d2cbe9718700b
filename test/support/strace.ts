// Starts a program under strace, which watches its system calls and lets chosen ones fail, die or dawdle.

export interface StraceOptions {
  /** Where the trace goes. It is complete when the standard error of the program has ended. */
  readonly output: string;
  /** System calls to trace; those of `inject` must be among them. */
  readonly calls: readonly string[];
  /** As strace wants them, such as `fsync:error=EIO:when=3`. The count is kept for each thread by itself. */
  readonly inject?: readonly string[];
  /** Only calls on these files, which need not exist yet. */
  readonly paths?: readonly string[];
  /** Bytes kept of each buffer that is written. */
  readonly bytesKept?: number;
}

/** The command to put in front of the program. The program keeps its own process id and exit code. */
export function strace({ output, calls, inject = [], paths = [], bytesKept = 64 }: StraceOptions): string[] {
  // The filter spares all other calls the detour, but strace 6.1 then forgets to send signals.
  const isFiltered = !inject.some((fault) => fault.includes("signal="));
  return [
    "strace",
    "--daemonize",
    "--follow-forks",
    "--decode-fds=path",
    "--strings-in-hex=all",
    ...(isFiltered ? ["--seccomp-bpf"] : []),
    "--timestamps=unix,us",
    `--string-limit=${bytesKept}`,
    "--signal=none",
    `--output=${output}`,
    `--trace=${calls.join(",")}`,
    ...inject.map((fault) => `--inject=${fault}`),
    ...paths.map((path) => `--trace-path=${path}`),
  ];
}
