// The version of the program, from the one place where it is written.

import { version } from "../../package.json" with { type: "json" };

export const VERSION: string = version;
