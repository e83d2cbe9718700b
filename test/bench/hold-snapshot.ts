// Holds a read snapshot of a store until it is killed: what keeps a write-ahead log from starting over.

import { Database } from "bun:sqlite";

const database = new Database(process.argv[2]!, { readonly: true });
database.run("BEGIN");
database.query("SELECT value FROM store").get();
console.log("held");
// The timer keeps the process alive, and with it the database from being collected.
setInterval(() => database.filename, 60_000);
