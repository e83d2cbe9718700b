// The settings table: defaults, what each row accepts, and that a wrong start names everything that is wrong.

import { afterAll, describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { type ChannelType, PROVIDER_ADDRESSES } from "../../src/relay/channel-types.ts";
import { ExitError } from "../../src/shared/errors.ts";
import { dropLineEnd, readDbPath, readSettings, SETTINGS, type Settings } from "../../src/shared/settings.ts";
import { tempDir } from "../support/temp-dir.ts";

const JWT_SECRET = "0123456789abcdef0123456789abcdef";
const MiB = 1024 * 1024;

const read = (env: Record<string, string | undefined> = {}): Settings => readSettings({ JWT_SECRET, ...env });

/** The lines of the refusal, without its headline. */
function problems(env: Record<string, string | undefined>): string[] {
  try {
    readSettings(env);
  } catch (error) {
    expect(error).toBeInstanceOf(ExitError);
    const { exitCode, message } = error as ExitError;
    expect(exitCode).toBe(2);
    const [headline, ...lines] = message.split("\n");
    expect(headline).toBe("These settings need attention:");
    expect(lines.every((line) => line.startsWith("  - "))).toBe(true);
    return lines.map((line) => line.slice(4));
  }
  return [];
}

const text = (secret: Uint8Array | undefined) => new TextDecoder().decode(secret);

describe("settings", () => {
  test("have the documented defaults", () => {
    const { secrets, services, ...rest } = read();
    expect(secrets.map(text)).toEqual([JWT_SECRET]);
    expect([...services]).toEqual(["kv", "token", "relay", "task"]);
    expect(rest).toMatchObject({
      allowWeakSecret: false,
      dbPath: "./data",
      backupDir: "data/backups",
      port: 8080,
      host: "0.0.0.0",
      mode: "debug",
      maxValueBytes: 25 * MiB,
      bodyBudgetBytes: 48 * MiB,
      readCacheBytes: 16 * MiB,
      maxInflight: 1024,
      writeQueueMax: 4096,
      writeTimeoutMs: 5000,
      walLimitBytes: 64 * MiB,
      dbMaxBytes: 0,
      reserveBytes: 16 * MiB,
      sweepIntervalMs: 1000,
      startupCheck: "auto",
      walDamage: "refuse",
      drainDelayMs: 0,
      shutdownTimeoutMs: 8000,
      accessLog: "all",
      logLevel: "info",
      metrics: "auth",
      trustedProxies: null,
      warnings: [],
      relayAllowCidrs: null,
      relayAllowHttp: false,
      relayBootstrapKey: null,
      relayBootstrapType: "SiliconFlow",
      relayBootstrapBaseUrl: null,
      relayBootstrapToken: null,
      relayBodyMax: 10 * MiB,
      relayResponseMax: 16 * MiB,
      relayEventMax: MiB,
      relayAttemptsMax: 3,
      relayRetryTimeouts: false,
      relayConnectMs: 5000,
      relayTtftMs: 120_000,
      relayIdleMs: 120_000,
      relayTotalMs: 600_000,
      relayOnClientAbort: "cancel",
      relayUpstreamMax: 4096,
      relayMaxInflight: 2048,
      relayCacheBytes: 64 * MiB,
      relayLogDays: 30,
      relayExposeChannel: false,
    });
  });

  test("that are empty count as not given", () => {
    const empty = Object.fromEntries(Object.values(SETTINGS).map(({ env }) => [env, ""]));
    expect(read({ ...empty, JWT_SECRET })).toEqual(read());
    expect(readDbPath({ DB_PATH: "" })).toBe("./data");
    expect(readDbPath({ DB_PATH: "/elsewhere" })).toBe("/elsewhere");
  });

  const accepted: [string, string, Partial<Settings>][] = [
    ["PORT", "0", { port: 0 }],
    ["PORT", "65535", { port: 65_535 }],
    ["GIN_MODE", "Release", { mode: "release" }],
    ["MAX_VALUE_BYTES", "1048576", { maxValueBytes: MiB }],
    ["MAX_VALUE_BYTES", "512KiB", { maxValueBytes: MiB / 2 }],
    ["MAX_VALUE_BYTES", "1 mib", { maxValueBytes: MiB }],
    ["BODY_BUDGET_BYTES", "1GiB", { bodyBudgetBytes: 1024 * MiB }],
    ["READ_CACHE_BYTES", "0", { readCacheBytes: 0 }],
    ["WRITE_TIMEOUT", "1.5s", { writeTimeoutMs: 1500 }],
    ["WRITE_TIMEOUT", "1h", { writeTimeoutMs: 3_600_000 }],
    ["SWEEP_INTERVAL", "10ms", { sweepIntervalMs: 10 }],
    ["DRAIN_DELAY", "0", { drainDelayMs: 0 }],
    ["DRAIN_DELAY", "1m30s", { drainDelayMs: 90_000 }],
    ["METRICS", "OFF", { metrics: "off" }],
    ["SERVICES", "kv", { services: new Set(["kv"] as const) }],
    ["SERVICES", "relay, kv", { services: new Set(["relay", "kv"] as const) }],
    ["ALLOW_WEAK_SECRET", "1", { allowWeakSecret: true }],
    ["BACKUP_DIR", "/b", { backupDir: "/b" }],
    ["RELAY_ALLOW_HTTP", "1", { relayAllowHttp: true }],
    ["RELAY_BOOTSTRAP_TYPE", "deepseek", { relayBootstrapType: "DeepSeek" }],
    ["RELAY_BOOTSTRAP_BASE_URL", "http://127.0.0.1:4010", { relayBootstrapBaseUrl: "http://127.0.0.1:4010" }],
    ["RELAY_BODY_MAX", "48MiB", { relayBodyMax: 48 * MiB }],
    ["RELAY_TTFT_MS", "250", { relayTtftMs: 250 }],
    ["RELAY_ON_CLIENT_ABORT", "DRAIN", { relayOnClientAbort: "drain" }],
    ["RELAY_UPSTREAM_MAX", "65535", { relayUpstreamMax: 65_535 }],
    ["RELAY_CACHE_BYTES", "0", { relayCacheBytes: 0 }],
    ["DB_PATH", "/d", { dbPath: "/d", backupDir: "/d/backups" }],
  ];
  test("take every form that is documented", () => {
    for (const [env, value, expected] of accepted) expect(read({ [env]: value })).toMatchObject(expected);
  });

  const refused: [string, string[]][] = [
    ["PORT", ["-1", "65536", "80.0", "8o80", " 80", "0x50", "1e3", "٣"]],
    ["GIN_MODE", ["production", "debug ", "0"]],
    ["SERVICES", ["kv;token", "kv,", "KV", "all", ","]],
    ["MAX_VALUE_BYTES", ["0", "-1", "25MB", "1.5MiB", "1TiB", "513MiB", "many"]],
    ["BODY_BUDGET_BYTES", ["0", "65GiB"]],
    ["READ_CACHE_BYTES", ["off", "65GiB"]],
    ["MAX_INFLIGHT", ["0", "1000001"]],
    ["WRITE_QUEUE_MAX", ["0", "x"]],
    ["WRITE_TIMEOUT", ["5", "0s", "9ms", "61m", "-5s", "5 s"]],
    ["WAL_LIMIT_BYTES", ["0", "1023KiB"]],
    ["DB_MAX_BYTES", ["-1", "none"]],
    ["RESERVE_BYTES", ["2GiB"]],
    ["SWEEP_INTERVAL", ["1", "0s"]],
    ["STARTUP_CHECK", ["yes", "1"]],
    ["WAL_DAMAGE", ["ignore"]],
    ["DRAIN_DELAY", ["-1s", "10"]],
    ["SHUTDOWN_TIMEOUT", ["8", "2h"]],
    ["ACCESS_LOG", ["on", "1"]],
    ["LOG_LEVEL", ["trace", "warning"]],
    ["METRICS", ["on", "token"]],
    ["ALLOW_WEAK_SECRET", ["yes", "true", "2"]],
    ["RELAY_ALLOW_CIDRS", ["localhost", "127.0.0.0/33", "http://127.0.0.1"]],
    ["RELAY_ALLOW_HTTP", ["yes"]],
    ["RELAY_BODY_MAX", ["0", "10MB"]],
    ["RELAY_BOOTSTRAP_TYPE", ["Azure", "20"]],
    ["RELAY_BOOTSTRAP_BASE_URL", ["api.example", "ftp://api.example", "https://u@api.example", "https://a/?b"]],
    ["RELAY_ATTEMPTS_MAX", ["0", "101"]],
    ["RELAY_CONNECT_MS", ["5s", "0"]],
    ["RELAY_ON_CLIENT_ABORT", ["ignore"]],
    ["RELAY_UPSTREAM_MAX", ["0", "65536"]],
    ["RELAY_LOG_DAYS", ["0", "30d"]],
    [
      "TRUSTED_PROXIES",
      ["proxy", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/-1", "::/129", "10.0.0.1,", "10.0.0", "10.0.0.0/8/8"],
    ],
    ["TOKEN_SOURCES", ["headers", "header,", "header;query", "Header", "cookie", ","]],
    ["TOKEN_BODY_AUTH_BYTES", ["0", "63", "-1", "513MiB", "1MB"]],
    ["TOKEN_MAX_VALUE_BYTES", ["0", "102399", "99KiB", "513MiB", "many"]],
    ["TOKEN_MAX_BATCH_KEYS", ["0", "-1", "1.5", "1000001", "ten"]],
    ["TOKEN_MAX_BATCH_BYTES", ["0", "63", "513MiB"]],
    ["TOKEN_MAX_LIMIT", ["0", "100001", "1e3"]],
    ["TOKEN_MAX_PAGE_BYTES", ["0", "1023KiB", "65GiB"]],
    ["TOKEN_MAX_SORT_ROWS", ["0", "10000001", "all"]],
    ["TOKEN_RATE_READ", ["-1", "1.5", "off", "1000000001", "1024/m"]],
    ["TOKEN_RATE_WRITE", ["-1", "none"]],
    ["TOKEN_RATE_DELETE", ["-1", "0x10"]],
    ["TOKEN_RATE_BATCH", ["-1", " 1"]],
    ["TOKEN_RATE_AUTH_FAIL", ["-1", "x"]],
    [
      "TOKEN_CORS_ORIGINS",
      ["*,https://a.example", "a.example", "https://a.example/", "https://*.example", "null", ","],
    ],
    ["TOKEN_KV_ALIAS", ["true", "on", "2"]],
  ];
  test("refuse everything else and say which setting, and what it takes", () => {
    for (const [env, values] of refused) {
      for (const value of values) {
        const found = problems({ JWT_SECRET, [env]: value });
        expect([env, value, found.length]).toEqual([env, value, 1]);
        expect(found[0]).toStartWith(`${env} must be `);
        const isShown = env !== "RELAY_BOOTSTRAP_BASE_URL";
        expect(found[0]!.endsWith(`, not "${value}"`)).toBe(isShown);
      }
    }
  });

  test("that are wrong are not repeated where they may hold a password or a key", () => {
    for (const [env, value] of [
      ["RELAY_BOOTSTRAP_BASE_URL", "https://user:pa55@api.example/v1"],
      ["RELAY_BOOTSTRAP_BASE_URL", "https://api.example/v1?key=pa55"],
      ["RELAY_BOOTSTRAP_BASE_URL", "sk-pa55"],
      ["TOKEN_CORS_ORIGINS", "https://user:pa55@app.example"],
      ["TASK_CORS_ORIGINS", "https://user:pa55@app.example"],
      ["TRUSTED_PROXIES", "user:pa55@10.0.0.1"],
    ] as const) {
      const found = problems({ JWT_SECRET, [env]: value });
      expect([env, found.length]).toEqual([env, 1]);
      expect(found[0]).toStartWith(`${env} must be `);
      expect(found[0]).not.toContain("pa55");
    }
  });

  test("that are wrong are all named at once", () => {
    const found = problems({ PORT: "http", GIN_MODE: "prod", WRITE_TIMEOUT: "5", METRICS: "on", JWT_SECRET: "" });
    expect(found.map((line) => line.split(" ")[0])).toEqual([
      "PORT",
      "GIN_MODE",
      "WRITE_TIMEOUT",
      "METRICS",
      "JWT_SECRET",
    ]);
  });

  test("that are wrong are told with examples that would be right", () => {
    const [ttl] = problems({ JWT_SECRET, TASK_ACCESS_TTL: "24" });
    expect(ttl).toContain("a duration from 1m to 1d, such as 1m or 15m");
    const [origins] = problems({ JWT_SECRET, TASK_CORS_ORIGINS: "a.b" });
    expect(origins).toContain("must be a comma-separated list of origins, such as https://board.example");
    expect(problems({ JWT_SECRET, TASK_CORS_ORIGINS: "*" })).toEqual([origins!.replace("a.b", "*")]);
  });

  test("of the task service that are wrong are named together, with databases that this version does not use", () => {
    const found = problems({
      JWT_SECRET: "short",
      GIN_MODE: "release",
      PORT: "eighty",
      DATABASE_HOST: "localhost",
      REDIS_HOST: "localhost",
      TASK_ACCESS_TTL: "24",
      TASK_RATE_USER: "60",
      TASK_RATE_LOGIN: "5/1y",
      JOBS_CONCURRENCY: "default=x",
      TASK_CORS_ORIGINS: "*",
      PASSWORD_PARALLEL: "0",
    });
    expect(found.map((line) => line.split(" ")[0]).sort()).toEqual([
      "DATABASE_HOST",
      "JOBS_CONCURRENCY",
      "JWT_SECRET",
      "PASSWORD_PARALLEL",
      "PORT",
      "REDIS_HOST",
      "TASK_ACCESS_TTL",
      "TASK_CORS_ORIGINS",
      "TASK_RATE_LOGIN",
      "TASK_RATE_USER",
    ]);
    for (const ttl of ["24", "1y", "48h", "1d1h"]) {
      expect([ttl, problems({ JWT_SECRET, TASK_ACCESS_TTL: ttl }).length]).toEqual([ttl, 1]);
    }
    expect(problems({ JWT_SECRET, DATABASE_HOST: "db" })[0]).toContain("DATABASE_URL");
    expect(problems({ JWT_SECRET, DATABASE_URL: "mysql://u:p@h/d" })[0]).toContain("embedded store");
    expect(read({ JWT_SECRET, TASK_ACCESS_TTL: "24h" }).taskAccessTtlMs).toBe(86_400_000);
    expect(read({ JWT_SECRET, TASK_RATE_USER: "0/1m" }).taskRateUser).toEqual({ limit: 0, windowMs: 60_000 });
    expect(read({ JWT_SECRET, JOBS_CONCURRENCY: "webhook=2" }).jobsConcurrency).toEqual({
      default: 5,
      webhook: 2,
      export: 1,
      system: 1,
    });
  });

  test("ask for a budget that holds at least one value of the largest size", () => {
    const problem = "BODY_BUDGET_BYTES must be at least MAX_VALUE_BYTES, or no value of that size could be stored";
    expect(problems({ JWT_SECRET, MAX_VALUE_BYTES: "49MiB" })).toEqual([`${problem}; it is 48MiB by default`]);
    expect(problems({ JWT_SECRET, MAX_VALUE_BYTES: "3MiB", BODY_BUDGET_BYTES: "2MiB" })[0]).toEndWith("; it is 2MiB");
    expect(read({ MAX_VALUE_BYTES: "49MiB", BODY_BUDGET_BYTES: "49MiB" }).bodyBudgetBytes).toBe(49 * MiB);
  });

  test("hold relayed bodies and answers within the budget, which bounds that were not set follow", () => {
    const small = { MAX_VALUE_BYTES: "1MiB", BODY_BUDGET_BYTES: "1MiB" };
    expect(read(small)).toMatchObject({ relayBodyMax: MiB, relayResponseMax: MiB });
    const found = problems({ JWT_SECRET, ...small, RELAY_BODY_MAX: "2MiB", RELAY_RESPONSE_MAX: "2MiB" });
    expect(found).toEqual([
      "RELAY_BODY_MAX must be at most BODY_BUDGET_BYTES",
      "RELAY_RESPONSE_MAX must be at most BODY_BUDGET_BYTES",
    ]);
  });

  test("refuse a directory for backups that is a file, and leave one to be made that is missing", () => {
    const file = import.meta.path;
    expect(problems({ JWT_SECRET, BACKUP_DIR: file })).toEqual([`BACKUP_DIR must be a directory; ${file} is none`]);
    expect(problems({ JWT_SECRET, BACKUP_DIR: import.meta.dir })).toEqual([]);
    expect(problems({ JWT_SECRET, BACKUP_DIR: `${import.meta.dir}/missing` })).toEqual([]);
  });

  test("hold batches of apps within the budget, which their bound follows when it was not set", () => {
    const small = { MAX_VALUE_BYTES: "1MiB", BODY_BUDGET_BYTES: "2MiB" };
    expect(read(small)).toMatchObject({ tokenMaxBatchBytes: 2 * MiB });
    expect(read({})).toMatchObject({ tokenMaxBatchBytes: 8 * MiB });
    const large = { JWT_SECRET, ...small, TOKEN_MAX_BATCH_BYTES: "3MiB" };
    expect(problems(large)).toEqual(["TOKEN_MAX_BATCH_BYTES must be at most BODY_BUDGET_BYTES"]);
    expect(problems({ ...large, SERVICES: "kv,relay" })).toEqual([]);
  });

  test("of a first channel and token are judged as the ones of an operator", () => {
    const key = { RELAY_BOOTSTRAP_KEY: "sk-canary", RELAY_BOOTSTRAP_TOKEN: "sk-nexus-abc" };
    expect(read(key)).toMatchObject({ relayBootstrapKey: "sk-canary", relayBootstrapToken: "sk-nexus-abc" });
    expect(problems({ JWT_SECRET, RELAY_BOOTSTRAP_KEY: "sk canary", RELAY_BOOTSTRAP_TOKEN: "canary" })).toEqual([
      "RELAY_BOOTSTRAP_KEY must have 1 to 4096 visible ASCII characters",
      "RELAY_BOOTSTRAP_TOKEN must have 8 to 256 visible ASCII characters",
    ]);
    const custom = { JWT_SECRET, RELAY_BOOTSTRAP_TYPE: "Custom" };
    expect(problems(custom)).toEqual([]);
    expect(problems({ ...custom, ...key })).toHaveLength(1);
    expect(problems({ ...custom, ...key, RELAY_BOOTSTRAP_BASE_URL: "https://a.example" })).toEqual([]);
    for (const type of Object.keys(PROVIDER_ADDRESSES)) {
      expect(read({ RELAY_BOOTSTRAP_TYPE: type }).relayBootstrapType).toBe(type as ChannelType);
    }
  });

  test("of a service that is off are not read", () => {
    const bad = { RELAY_BODY_MAX: "many", RELAY_LOG_DAYS: "-1", RELAY_BOOTSTRAP_KEY_FILE: "/nowhere" };
    expect(problems({ JWT_SECRET, ...bad })).toHaveLength(3);
    expect(problems({ JWT_SECRET, ...bad, SERVICES: "kv,token,task" })).toEqual([]);
    const bounds = { MAX_VALUE_BYTES: "3MiB", TOKEN_MAX_VALUE_BYTES: "4MiB", TOKEN_MAX_PAGE_BYTES: "2MiB" };
    const ofApps = { TOKEN_RATE_READ: "x", ...bounds };
    expect(problems({ JWT_SECRET, ...ofApps })).toHaveLength(3);
    expect(problems({ JWT_SECRET, ...ofApps, SERVICES: "kv,relay,task" })).toEqual([]);
    const short = { JWT_SECRET, MASTER_KEY: "short" };
    expect(problems({ ...short, SERVICES: "kv,token" })).toEqual([]);
    for (const service of ["relay", "task"]) expect(problems({ ...short, SERVICES: service })).toHaveLength(1);
  });

  test("keep the bounds of the token API and of the KV routes together", () => {
    expect(problems({ JWT_SECRET, TOKEN_MAX_VALUE_BYTES: "26MiB" })).toEqual([
      "TOKEN_MAX_VALUE_BYTES must be at most MAX_VALUE_BYTES",
    ]);
    expect(problems({ JWT_SECRET, TOKEN_MAX_PAGE_BYTES: "24MiB" })).toEqual([
      "TOKEN_MAX_PAGE_BYTES must be at least MAX_VALUE_BYTES, or one value could fill no page",
    ]);
    const small = read({ MAX_VALUE_BYTES: "1KiB" });
    expect([small.tokenMaxValueBytes, small.tokenMaxPageBytes]).toEqual([1024, 32 * MiB]);
    expect(read({ MAX_VALUE_BYTES: "40MiB" }).tokenMaxPageBytes).toBe(40 * MiB);
  });

  test("of the token API are read as they are meant", () => {
    const { tokenSources, tokenCorsOrigins, ...rest } = read();
    expect([...tokenSources]).toEqual(["header", "query", "body"]);
    expect(tokenCorsOrigins).toBeNull();
    expect(rest).toMatchObject({
      tokenBodyAuthBytes: MiB,
      tokenMaxValueBytes: MiB,
      tokenMaxBatchKeys: 10_000,
      tokenMaxBatchBytes: 8 * MiB,
      tokenMaxLimit: 1000,
      tokenMaxPageBytes: 32 * MiB,
      tokenMaxSortRows: 100_000,
      tokenKvAlias: false,
      tokenRateRead: 1024,
      tokenRateWrite: 512,
      tokenRateDelete: 256,
      tokenRateBatch: 128,
      tokenRateAuthFail: 120,
    });
    expect([...read({ TOKEN_SOURCES: "query, header" }).tokenSources]).toEqual(["query", "header"]);
    const origins = read({ TOKEN_CORS_ORIGINS: "https://a.example, http://localhost:5173" }).tokenCorsOrigins!;
    expect([...origins]).toEqual(["https://a.example", "http://localhost:5173"]);
    expect(read({ TOKEN_MAX_VALUE_BYTES: "102400" }).tokenMaxValueBytes).toBe(102_400);
    expect(read({ TOKEN_RATE_READ: "0", TOKEN_KV_ALIAS: "1" })).toMatchObject({ tokenRateRead: 0, tokenKvAlias: true });
  });

  test("show no more than the beginning of a wrong value", () => {
    expect(problems({ JWT_SECRET, PORT: "x".repeat(100_000) })[0]?.length).toBeLessThan(200);
  });

  test("know addresses and ranges of both families", () => {
    const { trustedProxies } = read({ TRUSTED_PROXIES: "10.0.0.0/8, 192.0.2.7,fd00::/8" });
    const asked = ["10.255.0.1", "192.0.2.7", "192.0.2.8", "11.0.0.1"].map((ip) => trustedProxies!.has(ip));
    expect(asked).toEqual([true, true, false, false]);
    expect(trustedProxies!.has("fd12::1")).toBe(true);
    expect(trustedProxies!.has("fe80::1")).toBe(false);
  });
});

describe("the secret", () => {
  const folder = tempDir();
  afterAll(() => folder[Symbol.dispose]());
  const fileWith = (name: string, content: string | Uint8Array): string => {
    writeFileSync(folder.file(name), content);
    return folder.file(name);
  };

  test("is required, by variable or by file, not both", () => {
    const missing = ['JWT_SECRET is missing. Set it, for example: export JWT_SECRET="$(openssl rand -base64 48)"'];
    expect(problems({})).toEqual(missing);
    expect(problems({ JWT_SECRET: "" })).toEqual(missing);
    const file = fileWith("secret", JWT_SECRET);
    expect(problems({ JWT_SECRET, JWT_SECRET_FILE: file })).toEqual([
      "JWT_SECRET and JWT_SECRET_FILE are both set; keep one of them",
    ]);
    expect(text(readSettings({ JWT_SECRET_FILE: file }).secrets[0])).toBe(JWT_SECRET);
  });

  test("in a file loses one line end and nothing else", () => {
    const cases: [string | Uint8Array, string | Uint8Array][] = [
      ["secret\n", "secret"],
      ["secret\r\n", "secret"],
      ["secret\n\n", "secret\n"],
      [" secret ", " secret "],
      ["secret\r", "secret\r"],
      [Uint8Array.of(0xff, 0x00, 0x0a), Uint8Array.of(0xff, 0x00)],
    ];
    for (const [content, expected] of cases) {
      const { secrets } = readSettings({ JWT_SECRET_FILE: fileWith("exact", content) });
      expect(Buffer.from(secrets[0]!)).toEqual(Buffer.from(expected as string));
    }
    expect(dropLineEnd(new Uint8Array(0))).toEqual(new Uint8Array(0));
  });

  test("in a variable is taken byte for byte", () => {
    for (const secret of [`${JWT_SECRET}\n`, ` ${JWT_SECRET} `, "schlüssel 🔑 and more than thirty-two bytes"]) {
      expect(text(readSettings({ JWT_SECRET: secret }).secrets[0])).toBe(secret);
    }
  });

  test("in a variable that is no UTF-8 is refused: the runtime makes one of many", () => {
    for (const name of ["JWT_SECRET", "JWT_SECRET_PREVIOUS", "MASTER_KEY"]) {
      const found = problems({ JWT_SECRET, [name]: `${JWT_SECRET}\ufffd` });
      expect(found).toEqual([`${name} is not UTF-8; put it into a file and name that in ${name}_FILE`]);
    }
  });

  test("file that is missing or empty is named", () => {
    const missing = folder.file("missing");
    expect(problems({ JWT_SECRET_FILE: missing })).toEqual([
      `JWT_SECRET_FILE (${missing}) cannot be read: there is no such file (ENOENT)`,
    ]);
    expect(problems({ JWT_SECRET_FILE: folder.path })).toEqual([
      `JWT_SECRET_FILE (${folder.path}) cannot be read: it is a folder (EISDIR)`,
    ]);
    for (const content of ["", "\n", "\r\n"]) {
      const file = fileWith("empty", content);
      expect(problems({ JWT_SECRET_FILE: file })).toEqual([`JWT_SECRET_FILE (${file}) is empty`]);
    }
  });

  test("under 32 bytes is a warning, and a refusal in release mode unless that is allowed", () => {
    const weak = { JWT_SECRET: "your-strong-secret-key", SERVICES: "kv,token" };
    const warning = expect.stringMatching(/^JWT_SECRET has 22 bytes\b.*\b32\b/);
    expect(readSettings(weak).warnings).toEqual([warning]);
    expect(readSettings({ ...weak, GIN_MODE: "test" }).warnings).toEqual([warning]);
    expect(problems({ ...weak, GIN_MODE: "release" })).toEqual([warning]);
    expect(problems({ ...weak, GIN_MODE: "release" })[0]).toContain("ALLOW_WEAK_SECRET=1");
    expect(problems({ ...weak, GIN_MODE: "RELEASE" })).toHaveLength(1);
    expect(readSettings({ ...weak, GIN_MODE: "release", ALLOW_WEAK_SECRET: "1" }).warnings).toEqual([warning]);
    expect(readSettings({ ...weak, JWT_SECRET: "x".repeat(31) }).warnings).toHaveLength(1);
    expect(readSettings({ JWT_SECRET: "x".repeat(32), GIN_MODE: "release" }).warnings).toEqual([]);
    // Bytes count, not characters.
    expect(readSettings({ JWT_SECRET: "ü".repeat(16), GIN_MODE: "release" }).warnings).toEqual([]);
  });

  test("never shows in a refusal", () => {
    const shown = problems({ JWT_SECRET: "canary", JWT_SECRET_PREVIOUS: "canary", GIN_MODE: "release", PORT: "x" });
    expect(shown).toHaveLength(3);
    expect(shown.join("\n")).not.toContain("canary");
  });

  test("has predecessors, one per line, of a variable or a file", () => {
    const previous = "older one\r\n\noldest one\n";
    for (const env of [
      { JWT_SECRET_PREVIOUS: previous },
      { JWT_SECRET_PREVIOUS_FILE: fileWith("previous", previous) },
    ]) {
      expect(read(env).secrets.map(text)).toEqual([JWT_SECRET, "older one", "oldest one"]);
    }
    expect(read({ JWT_SECRET_PREVIOUS: "\n\n" }).secrets).toHaveLength(1);
    const both = { JWT_SECRET, JWT_SECRET_PREVIOUS: "a", JWT_SECRET_PREVIOUS_FILE: fileWith("previous", "b") };
    expect(problems(both)).toEqual(["JWT_SECRET_PREVIOUS and JWT_SECRET_PREVIOUS_FILE are both set; keep one of them"]);
  });

  test("must be as long among the predecessors, each of which verifies as well as the one that signs", () => {
    const env = { JWT_SECRET, JWT_SECRET_PREVIOUS: `short\n${"x".repeat(32)}\r\n\n${"y".repeat(31)}\n` };
    const warning = expect.stringMatching(/^JWT_SECRET_PREVIOUS holds secrets under 32 bytes \(5, 31\)/);
    expect(readSettings(env).warnings).toEqual([warning]);
    expect(problems({ ...env, GIN_MODE: "release" })).toEqual([warning]);
    expect(problems({ ...env, GIN_MODE: "release" })[0]).toContain("ALLOW_WEAK_SECRET=1");
    expect(readSettings({ ...env, GIN_MODE: "release", ALLOW_WEAK_SECRET: "1" }).warnings).toEqual([warning]);
    const file = fileWith("weak", "short\n");
    expect(problems({ JWT_SECRET, JWT_SECRET_PREVIOUS_FILE: file, GIN_MODE: "release" })).toHaveLength(1);
    const strong = { JWT_SECRET, JWT_SECRET_PREVIOUS: `${"x".repeat(32)}\n${"y".repeat(40)}`, GIN_MODE: "release" };
    expect(readSettings(strong).warnings).toEqual([]);
  });

  test("is never made of spaces alone, in whatever line it stands", () => {
    const blank = " ".repeat(40);
    for (const name of ["JWT_SECRET_PREVIOUS", "MASTER_KEY_PREVIOUS"]) {
      for (const text of [`${JWT_SECRET}\n  \n`, `\t\r\n${JWT_SECRET}`, blank]) {
        expect(problems({ JWT_SECRET, [name]: text })).toEqual([
          `${name} holds a line of spaces alone, which would count as a secret; remove it`,
        ]);
      }
    }
    expect(problems({ JWT_SECRET: blank })).toEqual(["JWT_SECRET holds nothing but spaces"]);
    expect(problems({ JWT_SECRET, MASTER_KEY: blank })).toEqual(["MASTER_KEY holds nothing but spaces"]);
    expect(problems({ JWT_SECRET_FILE: fileWith("blank", `${blank}\n\n`) })).toEqual([
      "JWT_SECRET holds nothing but spaces",
    ]);
  });

  test("of the development mode stands in for a missing one only", () => {
    const made = new TextEncoder().encode("made by the development mode, 32 bytes long");
    expect(readSettings({}, () => made).secrets).toEqual([made]);
    expect(text(readSettings({ JWT_SECRET }, () => made).secrets[0])).toBe(JWT_SECRET);
    const file = fileWith("empty", "");
    expect(() => readSettings({ JWT_SECRET_FILE: file }, () => made)).toThrow("is empty");
  });
});

describe("the secrets that seal", () => {
  const folder = tempDir();
  afterAll(() => folder[Symbol.dispose]());
  const master = "m".repeat(32);
  const sealing = (env: Record<string, string>) => read(env).sealingSecrets.map(text);

  test("are the master keys, then the secrets that sign; the first one seals", () => {
    expect(sealing({})).toEqual([JWT_SECRET, JWT_SECRET]);
    expect(sealing({ MASTER_KEY: master, MASTER_KEY_PREVIOUS: "old\nolder", JWT_SECRET_PREVIOUS: "before" })).toEqual([
      master,
      "old",
      "older",
      JWT_SECRET,
      "before",
    ]);
    writeFileSync(folder.file("master"), `${master}\n`);
    expect(sealing({ MASTER_KEY_FILE: folder.file("master") })).toEqual([master, JWT_SECRET]);
  });

  test("lead back from a master key to the secret that signs", () => {
    expect(sealing({ MASTER_KEY_PREVIOUS: master })).toEqual([JWT_SECRET, master, JWT_SECRET]);
  });

  test("have at least 32 bytes when they are there for sealing alone", () => {
    expect(problems({ JWT_SECRET, MASTER_KEY: "m".repeat(31) })).toEqual([
      "MASTER_KEY has 31 bytes; use 32 or more (openssl rand -base64 48)",
    ]);
    expect(problems({ JWT_SECRET, MASTER_KEY: master, MASTER_KEY_FILE: "/nowhere" })).toHaveLength(1);
  });

  test("are said to be as weak as the secret that signs, when it is weak and seals", () => {
    const weak = { JWT_SECRET: "your-strong-secret-key" };
    expect(readSettings(weak).warnings).toHaveLength(2);
    expect(readSettings(weak).warnings[1]).toContain("MASTER_KEY");
    for (const service of ["relay", "task"]) {
      expect(readSettings({ ...weak, SERVICES: service }).warnings).toHaveLength(2);
    }
    expect(readSettings({ ...weak, SERVICES: "kv,token" }).warnings).toHaveLength(1);
    expect(readSettings({ ...weak, MASTER_KEY: master }).warnings).toHaveLength(1);
  });
});

test("names that are none of the settings are told, those of others and all values are not", () => {
  const warned = (env: Record<string, string>) => readSettings({ JWT_SECRET: "x".repeat(32), ...env }).warnings;
  const misspelt = ["RELAY_ALLOW_CIDR", "TASK_RATE", "TOKEN_X", "JOBS_", "WEBHOOK_TIMEOUTS", "JWT_SECRETS", "DB_PTH"];
  for (const name of misspelt) {
    expect(warned({ [name]: "canary" })).toEqual([`not read, since no setting has this name: ${name}`]);
  }
  const kubernetes = { TASK_SERVICE_HOST: "10.0.0.1", TASK_PORT: "tcp://10.0.0.1:80", RELAY_PORT_80_TCP: "x" };
  expect(warned({ PATH: "/bin", HOME: "/", GOKV_URL: "x", HOSTNAME: "h", ...kubernetes })).toEqual([]);
  const many = Object.fromEntries(Array.from({ length: 12 }, (_, index) => [`TASK_${index}`, "canary"]));
  expect(warned(many)).toEqual([expect.stringMatching(/TASK_9 and 2 more$/)]);
});
