// gokv user: the accounts of the task service, over the administrative routes of a running server.

import type { ArgsDef } from "citty";
import { given } from "../shared/given.ts";
import type { StrictCommand } from "./run-cli.ts";
import { query, SECRET_FROM, secretOf, type Target, type Verb, verbGroup } from "./verb-commands.ts";

const USER_ID: Target = { name: "id", isNumber: true, description: "Its number, which gokv user list shows" };
const PASSWORD: ArgsDef = {
  password: { type: "string", required: true, valueHint: "text", description: `The password, ${SECRET_FROM}` },
};

const userPath = (id: string, rest = "") => `/_admin/task/users/${id}${rest}`;

const USER_VERBS: Readonly<Record<string, Verb>> = {
  list: {
    description: "Lists accounts in the order of their numbers",
    args: {
      q: { type: "string", valueHint: "text", description: "Only those with this in their name or address" },
      limit: { type: "string", valueHint: "n", description: "At most so many" },
      cursor: { type: "string", valueHint: "id", description: "Go on behind this number" },
    },
    ask: (client, flags) => client.ask("GET", `/_admin/task/users${query(flags, ["q", "limit", "cursor"])}`),
  },
  show: {
    description: "Shows an account, a deleted one as well",
    target: USER_ID,
    ask: (client, _, id) => client.ask("GET", userPath(id)),
  },
  create: {
    description: "Makes an account, also when registration is closed",
    args: {
      username: { type: "string", required: true, valueHint: "name", description: "3 to 20 characters" },
      email: { type: "string", required: true, valueHint: "address", description: "Its e-mail address" },
      ...PASSWORD,
    },
    async ask(client, { username, email, password }) {
      return client.ask("POST", "/_admin/task/users", given({ username, email, password: await secretOf(password) }));
    },
  },
  disable: {
    description: "Keeps its owner out; its sessions end",
    target: USER_ID,
    ask: (client, _, id) => client.ask("PATCH", userPath(id), { disabled: true }),
  },
  enable: {
    description: "Lets its owner in again",
    target: USER_ID,
    ask: (client, _, id) => client.ask("PATCH", userPath(id), { disabled: false }),
  },
  password: {
    description: "Gives it another password; its sessions end",
    target: USER_ID,
    args: PASSWORD,
    async ask(client, { password }, id) {
      return client.ask("PATCH", userPath(id), { password: await secretOf(password) });
    },
  },
  logout: {
    description: "Ends its sessions",
    target: USER_ID,
    ask: (client, _, id) => client.ask("POST", userPath(id, "/logout")),
  },
  delete: {
    description: "Deletes an account and its tasks",
    target: USER_ID,
    ask: (client, _, id) => client.ask("DELETE", userPath(id)),
  },
};

export const userCommand: StrictCommand = verbGroup("gokv user", "Accounts of the task service", "task", USER_VERBS);
