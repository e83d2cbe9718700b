// Progress of long work on a terminal: a bar, the rate, the time left. Silent when stderr is a file or a pipe.

interface Progress {
  update(done: number, total: number): void;
  /** Clears the line. */
  end(): void;
}

const BAR_WIDTH = 24;
const REDRAW_MS = 100;

export function showProgress(unit: string): Progress {
  const { stderr } = process;
  if (!stderr.isTTY) return { update: () => undefined, end: () => undefined };
  const startMs = performance.now();
  let drawnMs = 0;
  return {
    update(done, total) {
      const nowMs = performance.now();
      if (nowMs - drawnMs < REDRAW_MS) return;
      drawnMs = nowMs;
      const share = total === 0 ? 1 : done / total;
      const seconds = (nowMs - startMs) / 1000;
      const bar = "█".repeat(Math.round(share * BAR_WIDTH)).padEnd(BAR_WIDTH, "░");
      const left = share === 0 ? "?" : Math.ceil((seconds / share) * (1 - share));
      stderr.write(`\r${bar} ${done}/${total} ${unit}, ${Math.round(done / seconds)}/s, ${left} s left \x1b[K`);
    },
    end: () => void stderr.write("\r\x1b[K"),
  };
}
