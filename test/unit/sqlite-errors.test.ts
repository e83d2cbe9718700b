// What a client whose read fails is told, by what SQLite says.

import { expect, test } from "bun:test";
import { AppError } from "../../src/shared/errors.ts";
import { readFailure } from "../../src/storage/sqlite-errors.ts";

const sqliteError = (errno: number) => Object.assign(new Error("no"), { name: "SQLiteError", errno });

test.each([
  ["SQLITE_BUSY", 5, "busy"],
  ["SQLITE_BUSY_SNAPSHOT", 517, "busy"],
  ["SQLITE_LOCKED", 6, "busy"],
  ["SQLITE_CORRUPT", 11, "value_damaged"],
  ["SQLITE_NOTADB", 26, "value_damaged"],
  ["SQLITE_IOERR", 10, "internal_error"],
] as const)("a read that ends with %s is answered with its code", (_, errno, code) => {
  const cause = sqliteError(errno);
  expect(readFailure(cause)).toMatchObject({ code, cause });
});

test("what is an answer already stays what it is", () => {
  const error = new AppError("unavailable", "The store has failed.");
  expect(readFailure(error)).toBe(error);
});
