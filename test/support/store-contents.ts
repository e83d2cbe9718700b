// A store with something of everything in it, and all of it read back through the API to be compared.

import { expect } from "bun:test";
import { forgeToken } from "./forge-token.ts";

const headers = () => ({ Authorization: `Bearer ${forgeToken()}` });

interface Sample {
  readonly path: string;
  readonly body: string | Uint8Array<ArrayBuffer>;
  readonly headers?: Readonly<Record<string, string>>;
}

const EVERY_BYTE = Uint8Array.from({ length: 256 }, (_, index) => index);

const SAMPLES: readonly Sample[] = [
  { path: "/users/1", body: "Ada", headers: { "Content-Type": "text/plain; charset=utf-8" } },
  { path: "/users/2", body: "Grace", headers: { "X-Meta-Team": "navy", "X-Meta-Rank": 'rear "admiral"' } },
  { path: "/users/empty", body: "" },
  { path: "/users/a/b//c/", body: "slashes" },
  { path: "/bytes/every", body: EVERY_BYTE },
  { path: "/bytes/large", body: new Uint8Array(2 * 1024 * 1024 + 1).fill(0xa5) },
  { path: "/bytes/late", body: "expires in a day", headers: { "X-TTL": "1d" } },
  { path: "/constructor/__proto__", body: "names of every object", headers: { "X-Meta-__proto__": "kept" } },
  { path: `/${encodeURIComponent("é😀")}/${encodeURIComponent('"\\\n\r\u2028\u2029\u0085%:*')}`, body: "odd names" },
  { path: `/${encodeURIComponent("e\u0301😀")}/k`, body: "the same, decomposed" },
];

/** Returns the number of entries. */
export async function fillStore(url: string): Promise<number> {
  for (const { path, body, headers: own } of SAMPLES) {
    const answer = await fetch(`${url}${path}`, { method: "POST", body, headers: { ...headers(), ...own } });
    expect([path, answer.status]).toEqual([path, 200]);
  }
  return SAMPLES.length;
}

export interface Content {
  readonly sha256: string;
  readonly type: string | null;
  readonly meta: Readonly<Record<string, unknown>>;
}

/** Everything a client can see of every entry, by bucket and key; revisions apart. */
export async function readContents(url: string): Promise<Record<string, Content>> {
  const get = (path: string) => fetch(`${url}${path}`, { headers: headers() });
  const list = async (query: string) => (await (await get(`/_list${query}`)).json()) as string[];
  const contents: Record<string, Content> = Object.create(null);
  for (const bucket of await list("")) {
    for (const key of await list(`?bucket=${encodeURIComponent(bucket)}`)) {
      const path = `/${encodeURIComponent(bucket)}/${encodeURIComponent(key)}`;
      const value = await get(path);
      const { revision: _, ...meta } = (await (await get(`/_meta${path}`)).json()) as Record<string, unknown>;
      contents[`${bucket}\0${key}`] = {
        sha256: new Bun.CryptoHasher("sha256").update(await value.arrayBuffer()).digest("hex"),
        type: value.headers.get("content-type"),
        meta,
      };
    }
  }
  return contents;
}

/** The largest revision that the store has given out so far: that of a write made now. */
export async function newestRevision(url: string): Promise<number> {
  const answer = await fetch(`${url}/probe/revision`, { method: "POST", headers: headers() });
  await fetch(`${url}/probe/revision`, { method: "DELETE", headers: headers() });
  return Number(JSON.parse(answer.headers.get("etag")!));
}
