// The bodies of the routes of accounts: one definition validates and documents them.

import { z } from "zod";
import { emailProblem, passwordProblem, usernameProblem } from "./account-rules.ts";

/** `judge` says what is wrong, null when nothing is. */
function judged(judge: (text: string) => string | null) {
  return z.string().superRefine((text, context) => {
    const problem = judge(text);
    if (problem !== null) context.addIssue({ code: "custom", message: problem });
  });
}

const username = judged(usernameProblem);
/** What stands around it is not part of it. */
const email = z
  .string()
  .transform((text) => text.trim())
  .pipe(judged(emailProblem));
const newPassword = (min: number) => judged((text) => passwordProblem(text, min));

/** Those of new passwords depend on a setting. */
export const newUserBody = (passwordMin: number) =>
  z.strictObject({ username, email, password: newPassword(passwordMin) });

export const newPasswordBody = (passwordMin: number) =>
  z.strictObject({ current_password: z.string(), new_password: newPassword(passwordMin) });

export const userChangesBody = (passwordMin: number) =>
  z.strictObject({ disabled: z.boolean(), password: newPassword(passwordMin) }).partial();

/** What cannot be an address or a password is not told apart from what is not the right one. */
export const LoginBody = z.strictObject({ email: z.string(), password: z.string() });

export const RefreshBody = z.strictObject({ refresh_token: z.string() });
export const LogoutBody = RefreshBody.partial();
export const ProfileBody = z.strictObject({ username, email, current_password: z.string() }).partial();
export const DeleteAccountBody = z.strictObject({ current_password: z.string() });
