// Starts the threads of the program: all begin in thread-entry.ts.

import { threadStarter } from "../storage/start-thread.ts";

export const startAppThread = threadStarter(new URL("./thread-entry.ts", import.meta.url));
