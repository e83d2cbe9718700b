// What the help of the server says of its settings, whether it is started with a command or without.

import { environmentOf } from "../shared/settings.ts";
import type { StrictCommand } from "./run-cli.ts";

export const SERVER_ENVIRONMENT: Required<Pick<StrictCommand, "environment" | "note">> = {
  environment: environmentOf("jwtSecret", "jwtSecretFile", "dbPath", "port", "host", "services"),
  note: "Settings come from the environment alone. The README lists all of them, under Settings.",
};
