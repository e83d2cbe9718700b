// What names, addresses and passwords may be, and when two of them are the same.

const USERNAME_MIN = 3;
const USERNAME_MAX = 20;
export const EMAIL_MAX = 254;
const PASSWORD_MAX = 128;

/** Something, an at sign, and a name with a dot in it: whether it is anybody's, only a mail would tell. */
const EMAIL = /^[^\s@\p{Cc}]{1,64}@[^\s@.\p{Cc}]+(?:\.[^\s@.\p{Cc}]+)+$/u;
const CONTROL = /[\p{Cc}\p{Zl}\p{Zp}]/u;
/** Joiners, marks of direction, fillers, Braille without a dot: two texts that differ in nothing else look alike. */
const INVISIBLE = /[\p{Cf}\p{Default_Ignorable_Code_Point}\u2800]/u;
/** Spaces, and marks that stand on nothing. */
const BLANK = /^[\p{Z}\p{M}]*$/u;

/** Two addresses with the same key are one. */
export function emailKeyOf(email: string): string {
  return email.trim().normalize("NFC").toLowerCase();
}

/** Two names with the same key are one; NFKC folds full-width and other look-alikes of one character. */
export function usernameKeyOf(username: string): string {
  return username.normalize("NFKC").toLowerCase();
}

/** What is left of the name of a deleted account: comments and tasks of others still show who it was by number. */
export function deletedUsername(userId: number): string {
  return `deleted-${userId}`;
}

const DELETED = /^deleted-\d+$/u;

/** Null when it may be used, else what is wrong. */
export function usernameProblem(username: string): string | null {
  if (CONTROL.test(username)) return "must not hold control characters";
  if (INVISIBLE.test(username)) return "must not hold invisible characters";
  if (BLANK.test(username)) return "must hold a visible character";
  if (username !== username.trim()) return "must not begin or end with a space";
  if (DELETED.test(usernameKeyOf(username))) return "is kept for deleted accounts";
  return lengthProblem(username, USERNAME_MIN, USERNAME_MAX);
}

/** Of an address without spaces around it. */
export function emailProblem(email: string): string | null {
  return EMAIL.test(email) && !INVISIBLE.test(email) && email.length <= EMAIL_MAX ? null : "must be an e-mail address";
}

export function passwordProblem(password: string, min: number): string | null {
  return lengthProblem(password, min, PASSWORD_MAX);
}

/** In code points. */
function lengthProblem(text: string, min: number, max: number): string | null {
  const { length } = [...text];
  if (length < min) return `must have at least ${min} characters`;
  return length > max ? `must have at most ${max} characters` : null;
}
