// Every answer that a suite of the task API gets, compared with what the OpenAPI document says of it.

import { apiDocument } from "../../src/app/api-document.ts";
import { RouteTree } from "../../src/http/route-tree.ts";
import { ApiContract, type ApiDocument } from "./api-contract.ts";
import type { Target } from "./targets.ts";

const DOCUMENT = apiDocument(new Set(["task"])) as unknown as ApiDocument;
const CONTRACT = new ApiContract(DOCUMENT);
const PATHS = new RouteTree(
  Object.fromEntries(Object.keys(DOCUMENT.paths).map((path) => [path.replaceAll(/\{(\w+)\}/g, ":$1"), path])),
);
/** What the document leaves out: methods that are not there, with the refusals that they can have, and HEAD. */
const UNDOCUMENTED: ReadonlySet<number> = new Set([405, 429]);

/** `path` with its query. Leaves the body of `response` to its reader. @throws when the document says otherwise */
export async function expectDocumented(
  method: string,
  path: string,
  response: Awaited<ReturnType<Target["fetch"]>>,
): Promise<void> {
  const found = PATHS.find(path.split("?")[0]!);
  const isJson = response.headers.get("content-type")?.startsWith("application/json") ?? response.body === null;
  if (found === null || method === "HEAD" || method === "OPTIONS") return;
  const isServed = method.toLowerCase() in DOCUMENT.paths[found.target]!;
  if (!isServed && UNDOCUMENTED.has(response.status)) return;
  if (!isJson) return;
  await CONTRACT.check(`${method.toLowerCase()} ${found.target}`, response.status, response.clone() as Response);
}
