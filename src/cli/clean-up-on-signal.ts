// What a command removes when it is interrupted: copies that nobody would ever finish.

import { constants } from "node:os";

/** Not SIGHUP: who started the command with nohup wants it to go on. */
const SIGNALS = ["SIGINT", "SIGTERM"] as const;

/**
 * Runs `act`. A signal in the meantime calls `cleanUp` and ends the process as a shell expects it: with 128 and its
 * number. `act` has to leave the thread free for that; before and after it a signal ends the process as ever.
 */
export async function cleaningUpOnSignal<T>(cleanUp: () => void, act: () => Promise<T>): Promise<T> {
  const onSignal = (signal: NodeJS.Signals) => {
    cleanUp();
    process.exit(128 + constants.signals[signal]);
  };
  for (const signal of SIGNALS) process.on(signal, onSignal);
  try {
    return await act();
  } finally {
    for (const signal of SIGNALS) process.off(signal, onSignal);
  }
}
