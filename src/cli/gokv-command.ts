// gokv: the table of its commands. Without one it serves.

import { EXIT } from "../shared/errors.ts";
import { VERSION } from "../shared/version.ts";
import type { StrictCommand } from "./run-cli.ts";
import { SERVER_ENVIRONMENT } from "./server-environment.ts";
import { writeOut } from "./write-out.ts";

const versionCommand: StrictCommand = {
  meta: { name: "version", description: "Prints the versions of gokv, Bun and SQLite" },
  async run() {
    const { requireSafeSqlite } = await import("../storage/sqlite-connection.ts");
    writeOut(`gokv ${VERSION}\nBun ${Bun.version}\nSQLite ${requireSafeSqlite()}\n`);
    return EXIT.done;
  },
};

const storeCommands = () => import("./store-commands.ts");
const serve = async () => (await import("./serve-command.ts")).serveCommand;

export const gokvCommand: StrictCommand = {
  meta: { name: "gokv", description: "A durable key-value server; without a command it serves" },
  args: { version: { type: "boolean", description: "Print the version" } },
  ...SERVER_ENVIRONMENT,
  subCommands: {
    serve,
    healthcheck: async () => (await import("./healthcheck-command.ts")).healthcheckCommand,
    backup: async () => (await storeCommands()).backupCommand,
    restore: async () => (await storeCommands()).restoreCommand,
    check: async () => (await storeCommands()).checkCommand,
    verify: async () => (await storeCommands()).verifyCommand,
    export: async () => (await storeCommands()).exportCommand,
    import: async () => (await storeCommands()).importCommand,
    token: async () => (await import("./token-commands.ts")).tokenCommand,
    relay: async () => (await import("./relay-commands.ts")).relayCommand,
    user: async () => (await import("./user-commands.ts")).userCommand,
    rekey: async () => (await import("./rekey-command.ts")).rekeyCommand,
    "jwt-gen": async () => (await import("./jwt-gen-command.ts")).jwtGenCommand,
    version: async () => versionCommand,
  },
  async run(flags) {
    if (flags.version === true) {
      writeOut(`${VERSION}\n`);
      return EXIT.done;
    }
    return (await serve()).run({});
  },
};
