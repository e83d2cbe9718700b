// The token gate as clients meet it: which tokens are let in, what each of them may touch, what a refusal says.

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { bumpLastCharacter, forgeToken, secondsFromNow } from "../support/forge-token.ts";
import { sendRaw } from "../support/raw-request.ts";
import { mint, type OpenTarget, SECRET, type Target } from "../support/targets.ts";

const OLDER_SECRET = "an older secret of more than 32 bytes, still in use";
const OLDEST_SECRET = "the oldest secret of more than 32 bytes, still in use";
const REFUSAL = '{"statusCode":401,"message":"A valid bearer token is required.","code":"unauthorized"}';
const INVALID_TOKEN = 'Bearer realm="gokv", error="invalid_token"';
const HEADER_BYTES_MAX = 8192;

/** Every method of every route that asks for a token. */
const GUARDED: readonly (readonly [string, string])[] = [
  ...["POST", "PUT", "GET", "HEAD", "DELETE"].map((method) => [method, "/users/1"] as const),
  ...["GET", "HEAD"].flatMap((method) =>
    ["/_list", "/_list?bucket=users", "/_meta/users/1", "/metrics"].map((path) => [method, path] as const),
  ),
  ["POST", "/users/2"],
  ["POST", "/_admin/backup"],
];

const expiringAt = (exp: unknown, more: object = {}) => forgeToken({ payload: { exp, ...more } });
const withHeader = (header: unknown) => forgeToken({ header });
const withPayload = (payload: unknown) => forgeToken({ payload });

/** Tokens that a careless gate would take; each differs from a good one in a single point. */
function refusedTokens(): Readonly<Record<string, string>> {
  const good = forgeToken();
  const [header, payload, signature] = good.split(".") as [string, string, string];
  const inAnHour = secondsFromNow(3600);
  const none = Buffer.from('{"alg":"none","typ":"JWT"}').toString("base64url");
  return {
    "alg none, no signature": `${none}.${payload}.`,
    "alg none, no signature segment": `${none}.${payload}`,
    "alg none, good signature": withHeader({ alg: "none" }),
    "alg nOnE, good signature": withHeader({ alg: "nOnE" }),
    "alg hs256": withHeader({ alg: "hs256" }),
    "alg missing": withHeader({ typ: "JWT" }),
    "alg a list": withHeader({ alg: ["HS256"] }),
    "alg HS512": forgeToken({ header: { alg: "HS512" }, digest: "sha512" }),
    "alg HS384": forgeToken({ header: { alg: "HS384" }, digest: "sha384" }),
    "alg HS256 over a SHA-512": forgeToken({ digest: "sha512" }),
    "alg RS256": withHeader({ alg: "RS256" }),
    "crit exp": withHeader({ alg: "HS256", crit: ["exp"] }),
    "crit empty": withHeader({ alg: "HS256", crit: [] }),
    "b64 false": withHeader({ alg: "HS256", b64: false }),
    "b64 false, critical": withHeader({ alg: "HS256", b64: false, crit: ["b64"] }),
    "typ at+jwt": withHeader({ alg: "HS256", typ: "at+jwt" }),
    "typ a number": withHeader({ alg: "HS256", typ: 1 }),
    "header a list": withHeader([{ alg: "HS256" }]),
    "header null": withHeader(null),
    "header no JSON": withHeader("{alg:HS256}"),
    "header with a byte order mark": withHeader('\ufeff{"alg":"HS256"}'),
    "its own key embedded": forgeToken({
      header: { alg: "HS256", jwk: { kty: "oct", k: Buffer.from("mine").toString("base64url") } },
      secret: "mine",
    }),
    "a key id that names an empty file": forgeToken({ header: { alg: "HS256", kid: "/dev/null" }, secret: "" }),
    "another secret": forgeToken({ secret: `${SECRET}.` }),
    "exp missing": withPayload({}),
    "exp text": expiringAt(`${inAnHour}`),
    "exp beyond every number": withPayload('{"exp":1e400}'),
    "exp a list": expiringAt([inAnHour]),
    "exp null": expiringAt(null),
    "exp true": expiringAt(true),
    "exp in the year 10000": expiringAt(253_402_300_800),
    "exp past": expiringAt(secondsFromNow(-1)),
    "exp long past": expiringAt(0),
    "nbf in a minute": expiringAt(inAnHour, { nbf: secondsFromNow(60) }),
    "nbf text": expiringAt(inAnHour, { nbf: "0" }),
    "nbf null": expiringAt(inAnHour, { nbf: null }),
    "payload a list": withPayload([{ exp: inAnHour }]),
    "payload null": withPayload(null),
    "payload a number": withPayload(inAnHour),
    "payload no JSON": withPayload(`{exp:${inAnHour}}`),
    "payload cut UTF-8": withPayload(Uint8Array.of(...Buffer.from(`{"exp":${inAnHour},"sub":"`), 0xc3, 0x22, 0x7d)),
    "scope a list": expiringAt(inAnHour, { scope: ["kv"] }),
    "scope null": expiringAt(inAnHour, { scope: null }),
    "prefix a number": expiringAt(inAnHour, { prefix: 1 }),
    "sub a number": expiringAt(inAnHour, { sub: 1 }),
    "jti an object": expiringAt(inAnHour, { jti: {} }),
    "buckets text": expiringAt(inAnHour, { buckets: "users" }),
    "buckets numbers": expiringAt(inAnHour, { buckets: [1] }),
    "buckets an object": expiringAt(inAnHour, { buckets: { 0: "users", length: 1 } }),
    "65 buckets": expiringAt(inAnHour, { buckets: Array.from({ length: 65 }, (_, index) => `b${index}`) }),
    "two segments": `${header}.${payload}`,
    "two segments and a dot": `${header}.${payload}.`,
    "four segments": `${good}.${signature}`,
    "four segments, the last empty": `${good}.`,
    "five segments, as an encrypted token": `${header}..${payload}.${payload}.${signature}`,
    "empty header": `.${payload}.${signature}`,
    "empty payload": `${header}..${signature}`,
    padded: `${good}=`,
    "padded payload": forgeToken({ payload: `{"exp":${inAnHour} }` }).replace(/\.([^.]+)\./, ".$1=."),
    "last character bumped": bumpLastCharacter(good),
    "signature cut": good.slice(0, -4),
    "signature of another": `${header}.${payload}.${expiringAt(inAnHour + 1).split(".")[2]}`,
    "payload of another": `${header}.${expiringAt(inAnHour + 1).split(".")[1]}.${signature}`,
    "inner space": `${header}. ${payload}.${signature}`,
    "inner tab": `${header}.${payload}.\t${signature}`,
    "standard base64": `${header}.${payload}.${signature.slice(0, -3)}+/w`,
    "a comma at the end": `${good},`,
    "a list of two": `${good}, Bearer ${good}`,
    quoted: `"${good}"`,
    "over 8 KiB": tokenOfLength(HEADER_BYTES_MAX + 1 - "Bearer ".length),
    "not a token": "abc",
    "random segments": "abc.def.ghi",
  };
}

/** The shortest good token of at least `length` characters. */
function tokenOfLength(length: number): string {
  const padded = (bytes: number) => withPayload({ exp: secondsFromNow(3600), pad: "x".repeat(bytes) });
  let pad = Math.floor((length * 3) / 4) - 120;
  while (padded(pad).length < length) pad++;
  return padded(pad);
}

export function gateSuite(name: string, open: OpenTarget): void {
  describe(`the token gate on ${name}`, () => {
    let target: Target;
    beforeAll(async () => {
      target = await open({ JWT_SECRET_PREVIOUS: `${OLDER_SECRET}\n${OLDEST_SECRET}` });
    });
    afterAll(() => target[Symbol.asyncDispose]());

    const send = (authorization: string | null, method = "GET", path = "/users/1") =>
      target.fetch(path, {
        method,
        headers: { Authorization: authorization },
        ...(method === "POST" || method === "PUT" ? { body: "changed" } : {}),
      });
    const statusWith = async (authorization: string | null) => {
      const response = await send(authorization);
      await response.text();
      return response.status;
    };

    describeRefusals(() => target, send);
    describeAcceptance(() => target, statusWith);
    describeExpiry(send);
  });
  describeRights(name, open);
  describeLimits(name, open);
}

type Send = (authorization: string | null, method?: string, path?: string) => Promise<Response>;

function describeRefusals(target: () => Target, send: Send): void {
  let etag: string | null;
  beforeAll(async () => {
    etag = (await target().fetch("/users/1", { method: "POST", body: "Ada" })).headers.get("etag");
  });

  const kinds: Readonly<Record<string, readonly [() => string | null, string]>> = {
    "no token": [() => null, 'Bearer realm="gokv"'],
    "a malformed token": [() => "Bearer abc.def", INVALID_TOKEN],
    "a wrongly signed token": [() => `Bearer ${forgeToken({ secret: "wrong" })}`, INVALID_TOKEN],
    "an expired token": [
      () => `Bearer ${expiringAt(secondsFromNow(-1))}`,
      `${INVALID_TOKEN}, error_description="expired"`,
    ],
    "a token that is both expired and wrongly signed": [
      () => `Bearer ${forgeToken({ secret: "wrong", payload: { exp: secondsFromNow(-1) } })}`,
      INVALID_TOKEN,
    ],
  };
  for (const [kind, [authorization, challenge]] of Object.entries(kinds)) {
    test(`${kind} is 401 on every route and changes nothing`, async () => {
      for (const [method, path] of GUARDED) {
        const response = await send(authorization(), method, path);
        const { status, headers } = response;
        expect([method, path, status, await response.text()]).toEqual([
          method,
          path,
          401,
          method === "HEAD" ? "" : REFUSAL,
        ]);
        expect(headers.get("www-authenticate")).toBe(challenge);
        expect(headers.get("content-type")).toBe("application/json");
        expect(headers.get("cache-control")).toBe("no-store");
        expect(headers.get("content-length")).toBe(`${REFUSAL.length}`);
      }
      const kept = await target().fetch("/users/1");
      expect([await kept.text(), kept.headers.get("etag")]).toEqual(["Ada", etag]);
      expect((await target().fetch("/users/2")).status).toBe(404);
      expect(await (await target().fetch("/_list")).json()).toEqual(["users"]);
    });
  }

  test("a token comes before the path, the right, the query and the size of a request", async () => {
    for (const path of ["/users", "/users/", "//k", "/_x/k", "/users/%ff", "/users/1?ttl=x", "/_list?limit=0"]) {
      expect([path, (await send(null, "GET", path)).status]).toEqual([path, 401]);
    }
    const huge = `POST /users/1 HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000000\r\nConnection: close\r\n\r\n`;
    expect((await sendRaw(target().url, huge)).statuses).toEqual([401]);
  });

  test("a bent token is 401, and a straight one made the same way is not", async () => {
    expect((await send(`Bearer ${forgeToken()}`)).status).toBe(200);
    const passed: string[] = [];
    for (const [what, token] of Object.entries(refusedTokens())) {
      const response = await send(`Bearer ${token}`);
      const challenge = response.headers.get("www-authenticate") ?? "";
      const isRefused = response.status === 401 && challenge.startsWith(INVALID_TOKEN);
      if (!isRefused || (await response.text()) !== REFUSAL) passed.push(`${what}: ${response.status} ${challenge}`);
      if (challenge.includes("expired") !== what.includes("past")) passed.push(`${what}: ${challenge}`);
    }
    expect(passed).toEqual([]);
  });

  test("another scheme, or none, is 401", async () => {
    const good = forgeToken();
    const basic = `Basic ${Buffer.from(`user:${good}`).toString("base64")}`;
    for (const authorization of ["Bearer", good, `Token ${good}`, basic, `Bearer\t${good}`, `Bearer=${good}`]) {
      expect([authorization, (await send(authorization)).status]).toEqual([authorization, 401]);
    }
  });

  test("a token anywhere but in the Authorization header is not read", async () => {
    const good = forgeToken();
    const places: Record<string, string>[] = [{ Cookie: `token=${good}` }, { "X-Authorization": `Bearer ${good}` }];
    places.push({ "Proxy-Authorization": `Bearer ${good}` });
    for (const headers of places) {
      const response = await target().fetch("/users/1", { headers: { ...headers, Authorization: null } });
      expect([Object.keys(headers), response.status]).toEqual([Object.keys(headers), 401]);
    }
    for (const path of [`/users/1?token=${good}`, `/users/1?access_token=${good}`, `/_list?token=${good}`]) {
      const response = await send(null, "GET", path);
      expect([path, response.status, response.headers.get("www-authenticate")]).toEqual([
        path,
        401,
        'Bearer realm="gokv"',
      ]);
    }
    const form = { method: "POST", body: `access_token=${good}`, headers: { Authorization: null } };
    expect((await target().fetch("/users/1", form)).status).toBe(401);
  });

  test("two Authorization headers are 401, even when both are good", async () => {
    const good = `Authorization: Bearer ${forgeToken()}\r\n`;
    const bad = "Authorization: Bearer abc.def.ghi\r\n";
    const answer = (headers: string) =>
      sendRaw(target().url, `GET /users/1 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n${headers}\r\n`);
    expect((await answer(good)).statuses).toEqual([200]);
    for (const headers of [good + good, good + bad, bad + good, `${good}authorization:\r\n`]) {
      const { statuses, text } = await answer(headers);
      expect(statuses).toEqual([401]);
      expect(text).toContain(REFUSAL);
    }
  });
}

function describeAcceptance(target: () => Target, statusWith: (authorization: string) => Promise<number>): void {
  test("a token of another library that holds nothing but exp opens everything", async () => {
    const headers = { Authorization: `Bearer ${forgeToken({ header: { alg: "HS256", typ: "JWT" } })}` };
    expect((await target().fetch("/other/1", { method: "POST", body: "x", headers })).status).toBe(200);
    expect(await (await target().fetch("/other/1", { headers })).text()).toBe("x");
    expect((await target().fetch("/_list", { headers })).status).toBe(200);
    expect((await target().fetch("/metrics", { headers })).status).toBe(200);
    expect((await target().fetch("/_admin/backup", { method: "POST", headers })).status).toBe(200);
    expect((await target().fetch("/other/1", { method: "DELETE", headers })).status).toBe(200);
  });

  test("what a token may vary in does not matter", async () => {
    const good = forgeToken();
    const exp = secondsFromNow(3600);
    const unused = { kid: "1", jku: "http://127.0.0.1:1/", x5u: "http://127.0.0.1:1/" };
    const buckets = ["users", ...Array.from({ length: 63 }, (_, index) => `b${index}`)];
    const variants: Readonly<Record<string, string>> = {
      "scheme in lower case": `bearer ${good}`,
      "scheme in capitals": `BEARER ${good}`,
      "several spaces": `Bearer    ${good}`,
      "typ jwt": `Bearer ${withHeader({ alg: "HS256", typ: "jwt" })}`,
      "kid, jku and x5u that nobody looks at": `Bearer ${withHeader({ alg: "HS256", ...unused })}`,
      "spaces in the header": `Bearer ${withHeader('{ "alg" : "HS256" }')}`,
      "a fractional exp": `Bearer ${expiringAt(exp + 0.5)}`,
      "the last moment of the year 9999": `Bearer ${expiringAt(253_402_300_799.5)}`,
      "nbf three seconds ahead": `Bearer ${expiringAt(exp, { nbf: secondsFromNow(3) })}`,
      "claims of others": `Bearer ${expiringAt(exp, { aud: "somebody", iss: 7, iat: "x", roles: [] })}`,
      "64 buckets": `Bearer ${expiringAt(exp, { buckets })}`,
      "just under 8 KiB": `Bearer ${tokenOfLength(HEADER_BYTES_MAX - 8 - "Bearer ".length)}`,
    };
    const refused: string[] = [];
    for (const [what, authorization] of Object.entries(variants)) {
      if ((await statusWith(authorization)) !== 200) refused.push(what);
    }
    expect(refused).toEqual([]);
  });

  test("tokens of previous secrets are accepted, those of a foreign one are not", async () => {
    for (const secret of [SECRET, OLDER_SECRET, OLDEST_SECRET]) {
      expect(await statusWith(`Bearer ${forgeToken({ secret })}`)).toBe(200);
    }
    for (const secret of ["a foreign secret", `${OLDER_SECRET}\n${OLDEST_SECRET}`, "", "\n"]) {
      expect(await statusWith(`Bearer ${forgeToken({ secret })}`)).toBe(401);
    }
  });
}

function describeExpiry(send: Send): void {
  test("a token in constant use is 401 from the instant at which it expires", async () => {
    const expiresAtMs = Date.now() + 1500;
    const authorization = `Bearer ${expiringAt(expiresAtMs / 1000)}`;
    let accepted = 0;
    for (;;) {
      const sentMs = Date.now();
      const { status } = await send(authorization);
      const answeredMs = Date.now();
      if (status === 200) {
        accepted++;
        expect(sentMs).toBeLessThan(expiresAtMs);
      } else {
        expect(status).toBe(401);
        expect(answeredMs).toBeGreaterThanOrEqual(expiresAtMs);
        break;
      }
    }
    expect(accepted).toBeGreaterThan(0);
    expect((await send(authorization)).headers.get("www-authenticate")).toContain('error_description="expired"');
  });
}

const FORBIDDEN_BODY = /^\{"statusCode":403,"message":"[^"]+","code":"forbidden"\}$/;

/** What a request needs, and one that needs it. */
const NEEDS: readonly (readonly [right: string, method: string, path: string])[] = [
  ["kv:read", "GET", "/users/1"],
  ["kv:read", "HEAD", "/users/1"],
  ["kv:read", "GET", "/_meta/users/1"],
  ["kv:read", "HEAD", "/_meta/users/1"],
  ["kv:write", "POST", "/users/1"],
  ["kv:write", "PUT", "/users/1"],
  ["kv:list", "GET", "/_list"],
  ["kv:list", "HEAD", "/_list"],
  ["kv:list", "GET", "/_list?bucket=users"],
  ["kv:list", "GET", "/_list?bucket=users&count=1"],
  ["kv:delete", "DELETE", "/spare/1"],
  ["admin", "GET", "/metrics"],
  ["admin", "HEAD", "/metrics"],
  ["admin", "POST", "/_admin/backup"],
];

function describeRights(name: string, open: OpenTarget): void {
  describe(`the scope of a token on ${name}`, () => {
    let target: Target;
    beforeAll(async () => {
      target = await open();
      await target.fetch("/users/1", { method: "POST", body: "Ada" });
    });
    afterAll(() => target[Symbol.asyncDispose]());

    const KV = ["kv:read", "kv:write", "kv:delete", "kv:list"];
    const scopes: Readonly<Record<string, readonly string[]>> = {
      "kv:read": ["kv:read"],
      "kv:write": ["kv:write"],
      "kv:delete": ["kv:delete"],
      "kv:list": ["kv:list"],
      admin: ["admin"],
      kv: KV,
      "kv:read kv:delete": ["kv:read", "kv:delete"],
      "kv admin": [...KV, "admin"],
      "  kv:read   nonsense ": ["kv:read"],
      "": [],
      nonsense: [],
      "KV KV:READ ADMIN": [],
      "kv:*  *": [],
      "kv:read,kv:write": [],
      "kv:\tread kv\nadmin": [],
    };
    test("admin inside some buckets, or below a prefix, makes no backup: that holds every bucket", async () => {
      for (const narrowing of [{ buckets: ["users"] }, { prefix: "a" }]) {
        const headers = { Authorization: `Bearer ${await mint({ scope: "kv admin", ...narrowing })}` };
        expect((await target.fetch("/_admin/backup", { method: "POST", headers })).status).toBe(403);
        expect((await target.fetch("/metrics", { headers })).status).toBe(200);
      }
    });

    for (const [scope, granted] of Object.entries(scopes)) {
      test(`scope ${JSON.stringify(scope)} opens ${granted.join(", ") || "nothing"}`, async () => {
        const headers = { Authorization: `Bearer ${await mint({ scope })}` };
        for (const [right, method, path] of NEEDS) {
          const body = method === "POST" || method === "PUT" ? { body: "Ada" } : {};
          const response = await target.fetch(path, { method, headers, ...body });
          const text = await response.text();
          expect([method, path, response.status]).toEqual([method, path, granted.includes(right) ? 200 : 403]);
          if (response.status === 200) continue;
          if (method !== "HEAD") expect(text).toMatch(FORBIDDEN_BODY);
          const challenge = `Bearer error="insufficient_scope", scope="${right}"`;
          expect(response.headers.get("www-authenticate")).toBe(challenge);
        }
      });
    }

    test("a token without scope, buckets and prefix opens everything", async () => {
      for (const [, method, path] of NEEDS) {
        const body = method === "POST" || method === "PUT" ? { body: "Ada" } : {};
        expect([path, (await target.fetch(path, { method, ...body })).status]).toEqual([path, 200]);
      }
    });

    test("a refused write or delete changes nothing", async () => {
      const headers = { Authorization: `Bearer ${await mint({ scope: "kv:read" })}` };
      await target.fetch("/users/1", { method: "POST", body: "Ada" });
      for (const method of ["POST", "PUT", "DELETE"]) {
        expect((await target.fetch("/users/1", { method, body: "no", headers })).status).toBe(403);
      }
      expect(await (await target.fetch("/users/1")).text()).toBe("Ada");
    });
  });
}

function describeLimits(name: string, open: OpenTarget): void {
  describe(`the limits of a token on ${name}`, () => {
    let target: Target;
    beforeAll(async () => {
      target = await open();
      for (const bucket of ["b", "b2", "B", "team-1", "team-2", "team", "tea", "z"]) {
        for (const key of ["user/1", "user/2", "user", "User/1", "zz"]) {
          await target.fetch(`/${bucket}/${key}`, { method: "POST", body: `${bucket} ${key}` });
        }
      }
    });
    afterAll(() => target[Symbol.asyncDispose]());

    const limitedTo = async (claims: { buckets?: string[]; prefix?: string; scope?: string }) => {
      const headers = { Authorization: `Bearer ${await mint(claims)}` };
      return (path: string, method = "GET") =>
        target.fetch(path, { method, headers, ...(method === "POST" || method === "PUT" ? { body: "new" } : {}) });
    };
    type Ask = Awaited<ReturnType<typeof limitedTo>>;
    const METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE"];

    /** The statuses of every method on a key, and of its `_meta`. */
    async function statuses(ask: Ask, path: string): Promise<Set<number>> {
      const seen = new Set<number>();
      for (const method of METHODS) seen.add((await ask(path, method)).status);
      if (seen.has(200)) await target.fetch(path, { method: "POST", body: path });
      for (const method of ["GET", "HEAD"]) seen.add((await ask(`/_meta${path}`, method)).status);
      return seen;
    }

    const OPEN = new Set([200]);
    const SHUT = new Set([403]);

    test("buckets hold for reading, writing, deleting and _meta", async () => {
      const ask = await limitedTo({ buckets: ["b", "team-*"] });
      for (const bucket of ["b", "team-1", "team-2", "team-"]) {
        await target.fetch(`/${bucket}/k`, { method: "POST" });
        expect([bucket, await statuses(ask, `/${bucket}/k`)]).toEqual([bucket, OPEN]);
        await target.fetch(`/${bucket}/k`, { method: "DELETE" });
      }
      for (const bucket of ["b2", "B", "team", "tea", "z", "%62%32", "missing", "*"]) {
        expect([bucket, await statuses(ask, `/${bucket}/user/1`)]).toEqual([bucket, SHUT]);
      }
      expect(await (await target.fetch("/b2/user/1")).text()).toBe("b2 user/1");
    });

    test("a prefix holds for reading, writing, deleting and _meta, compared after decoding", async () => {
      const ask = await limitedTo({ buckets: ["b"], prefix: "user/" });
      for (const key of ["user/1", "user%2F1", "%75ser/1"]) {
        expect([key, await statuses(ask, `/b/${key}`)]).toEqual([key, OPEN]);
      }
      for (const key of ["user", "User/1", "zz", "/user/1", "user%252F1", "use"]) {
        expect([key, await statuses(ask, `/b/${key}`)]).toEqual([key, SHUT]);
      }
      expect(await statuses(ask, "/b2/user/1")).toEqual(SHUT);
      expect(await (await target.fetch("/b/user")).text()).toBe("b user");
    });

    test("a path is judged as it is acted on", async () => {
      const token = await mint({ buckets: ["b"] });
      const get = (path: string) =>
        sendRaw(
          target.url,
          `GET ${path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer ${token}\r\n\r\n`,
        );
      expect((await get("/z/%2e%2e/b/zz")).text).toEndWith("b zz");
      for (const path of ["/b/%2e%2e/z/zz", "/b/../z/zz", "/b/./../z/zz", "/_meta/b/%2e%2e/z/zz"]) {
        expect([path, (await get(path)).statuses]).toEqual([path, [403]]);
      }
    });

    test("a refusal is the same for a key that exists and for one that does not", async () => {
      for (const claims of [{ buckets: ["b"] }, { prefix: "user/" }, { scope: "kv:list" }]) {
        const ask = await limitedTo(claims);
        for (const method of METHODS) {
          const answers = await Promise.all(
            ["/z/zz", "/z/missing", "/nowhere/zz"].map(async (path) => {
              const response = await ask(path, method);
              const headers = Object.fromEntries(response.headers);
              return { status: response.status, text: await response.text(), ...headers, date: "", "x-request-id": "" };
            }),
          );
          expect(answers[0]!.status).toBe(403);
          expect(answers[1]).toEqual(answers[0]!);
          expect(answers[2]).toEqual(answers[0]!);
        }
      }
    });

    test("lists show what is granted and nothing else", async () => {
      const list = async (ask: Ask, query = "") => (await ask(`/_list${query}`)).json();
      const inBuckets = await limitedTo({ buckets: ["z", "team-*", "b", "b", "team-1", "gone", "t%"] });
      expect(await list(inBuckets)).toEqual(["b", "team-1", "team-2", "z"]);
      expect(await list(inBuckets, "?reverse=1")).toEqual(["z", "team-2", "team-1", "b"]);
      expect(await list(inBuckets, "?prefix=team")).toEqual(["team-1", "team-2"]);
      expect(await list(inBuckets, "?bucket=gone")).toEqual([]);
      expect(await list(inBuckets, "?bucket=z")).toEqual(["User/1", "user", "user/1", "user/2", "zz"]);
      const everywhere = await limitedTo({ buckets: ["*"] });
      expect(await list(everywhere)).toEqual(await (await target.fetch("/_list")).json());
      const prefixed = await limitedTo({ prefix: "user/" });
      expect(await list(prefixed, "?bucket=z")).toEqual(["user/1", "user/2"]);
      expect(await list(prefixed, "?bucket=z&reverse=1")).toEqual(["user/2", "user/1"]);
      expect(await list(prefixed, "?bucket=z&prefix=us")).toEqual(["user/1", "user/2"]);
      expect(await list(prefixed, "?bucket=z&prefix=user/2")).toEqual(["user/2"]);
      expect(await list(prefixed, "?bucket=z&prefix=zz")).toEqual([]);
      expect(await list(prefixed, "?bucket=z&start=user/2&end=zzz")).toEqual(["user/2"]);
      expect(await list(prefixed, "?bucket=z&count=1")).toEqual({ count: 2 });
      expect(await list(prefixed, "?bucket=z&delimiter=/")).toEqual(["user/"]);
      const { keys } = (await list(prefixed, "?bucket=z&details=1")) as { keys: { name: string }[] };
      expect(keys.map((key) => key.name)).toEqual(["user/1", "user/2"]);
    });

    test("paging through granted buckets meets each of them once", async () => {
      const ask = await limitedTo({ buckets: ["z", "team-*", "b"] });
      for (const limit of [1, 2, 3, 4]) {
        const seen: string[] = [];
        let path: string | null = `/_list?limit=${limit}`;
        while (path !== null) {
          const response: Response = await ask(path);
          seen.push(...((await response.json()) as string[]));
          path = /<([^>]+)>/.exec(response.headers.get("link") ?? "")?.[1] ?? null;
        }
        expect([limit, seen]).toEqual([limit, ["b", "team-1", "team-2", "z"]]);
      }
    });

    test("listing a bucket that is not granted is 403, whether it exists or not", async () => {
      const ask = await limitedTo({ buckets: ["b", "team-*"] });
      for (const bucket of ["b2", "B", "team", "nowhere", "%00", "_x"]) {
        for (const more of ["", "&count=1", "&details=1", "&limit=1"]) {
          expect([bucket, (await ask(`/_list?bucket=${bucket}${more}`)).status]).toEqual([bucket, 403]);
        }
      }
    });

    test("a cursor carries no right: each page is judged by the token that asks for it", async () => {
      const cursor = (await target.fetch("/_list?bucket=z&limit=1")).headers.get("x-next-cursor");
      expect(cursor).not.toBeNull();
      const stranger = await limitedTo({ buckets: ["b"] });
      expect((await stranger(`/_list?bucket=z&limit=1&cursor=${cursor}`)).status).toBe(403);
      const prefixed = await limitedTo({ prefix: "user/2" });
      expect(await (await prefixed(`/_list?bucket=z&limit=1&cursor=${cursor}`)).json()).toEqual(["user/2"]);
    });

    test("limits without a scope open no administrative route", async () => {
      for (const claims of [{ buckets: ["*"] }, { buckets: ["b"] }, { prefix: "" }, { prefix: "user/" }]) {
        const ask = await limitedTo(claims);
        expect((await ask("/b/user/1")).status).toBe(200);
        for (const [path, method] of [
          ["/_admin/backup", "POST"],
          ["/metrics", "GET"],
        ] as const) {
          const response = await ask(path, method);
          const challenge = 'Bearer error="insufficient_scope", scope="admin"';
          expect([response.status, response.headers.get("www-authenticate")]).toEqual([403, challenge]);
        }
      }
    });

    test("an empty list of buckets opens no bucket", async () => {
      for (const claims of [{ buckets: [] }, { buckets: [], scope: "kv" }]) {
        const ask = await limitedTo(claims);
        expect(await statuses(ask, "/b/user/1")).toEqual(SHUT);
        expect((await ask("/_list?bucket=b")).status).toBe(403);
        expect(await (await ask("/_list")).json()).toEqual([]);
      }
    });

    test("a scope inside limits takes away, never adds", async () => {
      const ask = await limitedTo({ buckets: ["b"], scope: "kv:read admin" });
      expect((await ask("/b/user/1")).status).toBe(200);
      expect((await ask("/b/user/1", "POST")).status).toBe(403);
      expect((await ask("/b2/user/1")).status).toBe(403);
      expect((await ask("/metrics")).status).toBe(200);
    });
  });
}
