// Routes of the task service that lead to accounts.

import { parseQuery } from "../http/query-parameters.ts";
import { respondJson } from "../http/respond.ts";
import { AppError } from "../shared/errors.ts";
import { formatTime } from "../shared/iso-time.ts";
import { DeleteAccountBody, newPasswordBody, newUserBody, ProfileBody } from "./account-bodies.ts";
import { readFields } from "./account-request.ts";
import { fieldsError } from "./request-bodies.ts";
import { SESSION_ROUTES } from "./session-routes.ts";
import { forAnybody, forUsers, type TaskRequest, type TaskRoutes, type UserRequest } from "./task-request.ts";
import type { TaskServices } from "./task-services.ts";
import type { User } from "./task-tables.ts";

export const ACCOUNT_ROUTES: TaskRoutes = {
  ...SESSION_ROUTES,
  "/auth/register": { POST: forAnybody(register) },
  "/auth/me": { GET: forUsers(showProfile), PATCH: forUsers(updateProfile), DELETE: forUsers(deleteAccount) },
  "/auth/password": { POST: forUsers(changePassword) },
  "/users": { GET: forUsers(findUser) },
};

async function register(request: TaskRequest): Promise<Response> {
  const { services, scope } = request;
  if (services.settings.taskRegistration === "closed") {
    throw new AppError("registration_closed", "registration is closed");
  }
  services.rates.takeStricter(scope, "register");
  const schema = newUserBody(services.settings.passwordMin);
  const body = await readFields(request, schema);
  const { id, username, email } = await createUser(services, body);
  return respondJson(scope, 201, { message: "User registered successfully", user: { id, username, email } });
}

/** @throws AppError email_taken, username_taken, busy */
export async function createUser(
  { accounts, writer }: Pick<TaskServices, "accounts" | "writer">,
  { username, email, password }: { username: string; email: string; password: string },
): Promise<User> {
  // A hash costs more than a look.
  if ((await accounts.store.findByEmail(email)) !== null) {
    throw new AppError("email_taken", "email is already registered");
  }
  if (await accounts.store.hasUsername(username)) throw new AppError("username_taken", "username is already taken");
  const passwordHash = await accounts.passwords.hash(password);
  return writer.run("task.createUser", { username, email, passwordHash });
}

async function showProfile({ services, scope, who }: UserRequest): Promise<Response> {
  parseQuery(scope.request.url, []);
  const { user } = await services.accounts.store.requireCredentials(who.userId);
  return respondJson(scope, 200, profileBody(user));
}

async function updateProfile(request: UserRequest): Promise<Response> {
  const { services, scope, who } = request;
  const { accounts } = services;
  const body = await readFields(request, ProfileBody);
  const { username, current_password: password } = body;
  const credentials = await accounts.store.requireCredentials(who.userId);
  // Sent as it is, it is not to be changed, whatever becomes of it meanwhile.
  const email = body.email === credentials.user.email ? undefined : body.email;
  let expectedHash: string | undefined;
  if (email !== undefined) {
    if (password === undefined) throw fieldsError({ current_password: "required" });
    await accounts.requirePassword(request, credentials, password);
    expectedHash = credentials.passwordHash;
  }
  const user = await services.writer.run("task.updateUser", { userId: who.userId, username, email, expectedHash });
  return respondJson(scope, 200, profileBody(user));
}

async function deleteAccount(request: UserRequest): Promise<Response> {
  const { services, scope, who } = request;
  const { accounts } = services;
  const body = await readFields(request, DeleteAccountBody);
  const credentials = await accounts.store.requireCredentials(who.userId);
  await accounts.requirePassword(request, credentials, body.current_password);
  await accounts.delete(scope, who.userId, credentials.passwordHash);
  return respondJson(scope, 200, { message: "Account deleted" });
}

async function changePassword(request: UserRequest): Promise<Response> {
  const { services, scope, who } = request;
  const { accounts, settings } = services;
  const schema = newPasswordBody(settings.passwordMin);
  const body = await readFields(request, schema);
  const credentials = await accounts.store.requireCredentials(who.userId);
  await accounts.requirePassword(request, credentials, body.current_password);
  const passwordHash = await accounts.passwords.hash(body.new_password);
  const refresh = accounts.newRefreshToken();
  const opened = await accounts.change(who.userId, "task.changePassword", {
    userId: who.userId,
    expectedHash: credentials.passwordHash,
    passwordHash,
    sessionId: who.sessionId,
    refreshHash: refresh.hash,
    idleMs: settings.taskRefreshIdleMs,
    nowMs: services.clock(),
  });
  return respondJson(scope, 200, await accounts.pairOf(opened, refresh));
}

async function findUser({ services, scope }: UserRequest): Promise<Response> {
  const { username } = parseQuery(scope.request.url, ["username"]);
  if (!username) throw fieldsError({ username: "required" });
  const found = await services.accounts.store.findActiveByName(username);
  return respondJson(scope, 200, found === null ? [] : [found]);
}

function profileBody({ id, username, email, createdAtMs, updatedAtMs }: User) {
  return { id, username, email, created_at: formatTime(createdAtMs), updated_at: formatTime(updatedAtMs) };
}
