// Hashes of passwords: what they look like, what verifies, how many run at once.

import { describe, expect, test } from "bun:test";
import { Passwords } from "../../src/auth/passwords.ts";
import { AppError } from "../../src/shared/errors.ts";

/** How many wait for their turn. */
const WAITING = 64;
const COST = { memoryKib: 8192, passes: 1, parallel: 2 };

describe("hashes of passwords", () => {
  test("are argon2id at the cost that was set, salted, and verify", async () => {
    const passwords = new Passwords(COST);
    const [first, second] = await Promise.all([passwords.hash("secret"), passwords.hash("secret")]);
    expect(first).toStartWith("$argon2id$v=19$m=8192,t=1,p=1$");
    expect(second).not.toBe(first);
    expect(await passwords.verify("secret", first)).toBe(true);
    expect(await passwords.verify("Secret", first)).toBe(false);
    expect(await passwords.verify("", first)).toBe(false);
  });

  test("at another cost, or of bcrypt, verify too, and are outdated", async () => {
    const passwords = new Passwords(COST);
    const costly = await new Passwords({ ...COST, passes: 2 }).hash("secret");
    const bcrypt = await Bun.password.hash("secret", { algorithm: "bcrypt", cost: 4 });
    for (const hash of [costly, bcrypt, bcrypt.replace("$2b$", "$2a$"), bcrypt.replace("$2b$", "$2y$")]) {
      expect([hash, await passwords.verify("secret", hash)]).toEqual([hash, true]);
      expect([hash, await passwords.verify("wrong", hash)]).toEqual([hash, false]);
      expect([hash, passwords.isOutdated(hash)]).toEqual([hash, true]);
    }
    expect(passwords.isOutdated(await passwords.hash("secret"))).toBe(false);
  });

  test("without a hash nothing verifies", async () => {
    const passwords = new Passwords(COST);
    for (const password of ["secret", ""]) expect(await passwords.verify(password, null)).toBe(false);
  });

  test("run as many at once as was set; 64 others wait, and those who find no place hear busy", async () => {
    const passwords = new Passwords(COST);
    const hash = await passwords.hash("secret");
    let [running, most] = [0, 0];
    const begins = () => {
      most = Math.max(most, ++running);
    };
    const ends = () => void running--;
    const all = Array.from({ length: COST.parallel + WAITING }, () =>
      passwords.verify("secret", hash, { begins, ends }),
    );
    const refusal = await passwords.verify("secret", hash).catch((error: unknown) => error);
    expect(refusal).toBeInstanceOf(AppError);
    expect((refusal as AppError).code).toBe("busy");
    expect((await Promise.all(all)).every(Boolean)).toBe(true);
    expect(most).toBe(COST.parallel);
    expect(await passwords.verify("secret", hash)).toBe(true);
  });

  test("leave the event loop free", async () => {
    const passwords = new Passwords({ memoryKib: 65_536, passes: 4, parallel: 1 });
    let turns = 0;
    const timer = setInterval(() => turns++, 1);
    await passwords.hash("secret");
    clearInterval(timer);
    expect(turns).toBeGreaterThan(5);
  });

  test("give their place on when a turn is refused or a hash is none", async () => {
    const passwords = new Passwords({ ...COST, parallel: 1 });
    const begins = () => {
      throw new AppError("rate_limited", "no");
    };
    const refuse = { begins, ends: () => undefined };
    await expect(passwords.verify("secret", null, refuse)).rejects.toThrow("no");
    await expect(passwords.verify("secret", "nonsense")).rejects.toThrow();
    expect(await passwords.verify("secret", await passwords.hash("secret"))).toBe(true);
  });
});
