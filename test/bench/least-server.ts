// The least that a durable key-value server can do on this runtime: no token, no check, no limit, no figures, two
// columns and the headers of an answer. What lies between it and the bare server no durable server gets back.

import { Database } from "bun:sqlite";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { type FloorServer, startFloorServer } from "./floor-server.ts";

/** `path` is that of a new database file. */
export function startLeastServer(path: string): Promise<FloorServer> {
  return startFloorServer(import.meta.path, path);
}

interface Write {
  readonly key: string;
  readonly value: Uint8Array;
  readonly resolve: (response: Response) => void;
}

interface Entry {
  readonly value: Uint8Array<ArrayBuffer>;
  /** From the first read on. */
  headers?: Headers;
}

/** One batch is under way, the next one gathers, as in the server that is measured. */
function serve(path: string): void {
  const thread = new Worker(new URL(import.meta.url), { workerData: path });
  const entries = new Map<string, Entry>();
  let waiting: Write[] = [];
  let underWay: Write[] = [];
  const send = () => {
    if (underWay.length > 0 || waiting.length === 0) return;
    underWay = waiting;
    waiting = [];
    thread.postMessage(underWay.map(({ key, value }) => [key, value]));
  };
  thread.on("message", () => {
    const committed = underWay;
    underWay = [];
    send();
    for (const { resolve } of committed) resolve(new Response(null, { headers: { ETag: '"1"' } }));
  });
  const answer = async (request: Request) => {
    const key = request.url.slice(request.url.indexOf("/", "http://".length));
    if (request.method === "GET") return found(entries.get(key));
    const value = new Uint8Array(await request.arrayBuffer());
    entries.set(key, { value });
    return new Promise<Response>((resolve) => {
      waiting.push({ key, value, resolve });
      setImmediate(send);
    });
  };
  const server = Bun.serve({ hostname: "127.0.0.1", port: 0, development: false, fetch: answer });
  console.log(server.url.href.replace(/\/$/, ""));
}

function found(entry: Entry | undefined): Response {
  if (entry === undefined) return new Response(null, { status: 404 });
  entry.headers ??= entryHeaders();
  return new Response(entry.value, { headers: entry.headers });
}

function entryHeaders(): Headers {
  return new Headers({
    ETag: '"1"',
    "Last-Modified": new Date().toUTCString(),
    "Content-Type": "application/octet-stream",
    "Cache-Control": "private, no-cache",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
  });
}

function store(path: string): void {
  const database = new Database(path, { create: true });
  database.run("PRAGMA journal_mode = WAL");
  database.run("PRAGMA synchronous = FULL");
  database.run("CREATE TABLE kv (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID, STRICT");
  const put = database.prepare("INSERT OR REPLACE INTO kv VALUES (?, ?)");
  const commit = database.transaction((writes: [string, Uint8Array][]) => {
    for (const [key, value] of writes) put.run(key, value);
  });
  parentPort!.on("message", (writes: [string, Uint8Array][]) => {
    commit.immediate(writes);
    parentPort!.postMessage(null);
  });
}

if (!isMainThread) store(workerData as string);
else if (import.meta.main) serve(process.argv[2]!);
