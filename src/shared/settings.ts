// The settings table: every environment variable that the server reads, its default, its rule, its meaning.

import { readFileSync, statSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { GiB, KiB, MiB, SECRET_BYTES_MIN } from "./bounds.ts";
import { formatByteSize } from "./byte-sizes.ts";
import { EXIT, ExitError } from "./errors.ts";
import {
  bytes,
  corsOrigins,
  duration,
  integer,
  isOn,
  jobSlots,
  namedOrigins,
  oneOf,
  type Parse,
  provider,
  rate,
  type ServiceName,
  services,
  subnets,
  tokenSources,
  upstreamAddress,
} from "./setting-parsers.ts";
import { fileReason } from "./system-reasons.ts";
import { unknownSettings } from "./unknown-settings.ts";

/** One row of the table. `fallback` is the text used when the variable is unset or empty; null = no value. */
interface Setting<T> {
  readonly env: string;
  readonly fallback: string | null;
  readonly meaning: string;
  readonly parse: (text: string) => T;
}

function row<T>(env: string, fallback: string, meaning: string, parse: Parse<T>): Setting<T> {
  return { env, fallback, meaning, parse };
}

function optional<T>(env: string, meaning: string, parse: Parse<T>): Setting<T | null> {
  return { env, fallback: null, meaning, parse };
}

/** All settings by the name they have in the program. The README's table is checked against this one. */
export const SETTINGS = {
  jwtSecret: optional("JWT_SECRET", "the secret that signs operator tokens (required, this or the file)", String),
  jwtSecretFile: optional("JWT_SECRET_FILE", "a file that holds it; one trailing line end is dropped", String),
  jwtSecretPrevious: optional("JWT_SECRET_PREVIOUS", "older secrets, one per line; they verify, never sign", String),
  jwtSecretPreviousFile: optional("JWT_SECRET_PREVIOUS_FILE", "a file that holds them", String),
  allowWeakSecret: row(
    "ALLOW_WEAK_SECRET",
    "0",
    "1 = accept a secret under 32 bytes with GIN_MODE=release as well",
    isOn,
  ),
  dbPath: row("DB_PATH", "./data", "the data directory", String),
  port: row("PORT", "8080", "TCP port; 0 = any free one, printed in the listening line", integer(0, 65_535)),
  host: row("HOST", "0.0.0.0", "address to listen on", String),
  mode: row(
    "GIN_MODE",
    "debug",
    "debug = readable log; release = JSON lines, strict secret; test = errors only",
    oneOf("debug", "release", "test"),
  ),
  services: row("SERVICES", "kv,token,relay,task", "the services to mount", services),
  maxValueBytes: row("MAX_VALUE_BYTES", "25MiB", "largest value", bytes(1, 512 * MiB)),
  bodyBudgetBytes: row(
    "BODY_BUDGET_BYTES",
    "48MiB",
    "memory for bodies, their JSON and large answers, a part of it for operators alone; at least MAX_VALUE_BYTES",
    bytes(1, 64 * GiB),
  ),
  readCacheBytes: row("READ_CACHE_BYTES", "16MiB", "memory for hot entries up to 16 KiB; 0 = off", bytes(0, 64 * GiB)),
  maxInflight: row("MAX_INFLIGHT", "1024", "requests at work at once; beyond: 503", integer(1, 1_000_000)),
  writeQueueMax: row("WRITE_QUEUE_MAX", "4096", "writes waiting for the storage thread; beyond: 503", integer(1, 1e6)),
  writeTimeoutMs: row(
    "WRITE_TIMEOUT",
    "5s",
    "a write that still waits by then is dropped, surely not applied: 503",
    duration(10, 3_600_000),
  ),
  walLimitBytes: row("WAL_LIMIT_BYTES", "64MiB", "the write-ahead log is cut back past this", bytes(MiB, 64 * GiB)),
  dbMaxBytes: row("DB_MAX_BYTES", "0", "largest database file, beyond: 507; 0 = no limit", bytes(0, 16 * 1024 * GiB)),
  reserveBytes: row(
    "RESERVE_BYTES",
    "16MiB",
    "space kept so that deletes work on a full disk; at most 1/16 of the volume",
    bytes(0, GiB),
  ),
  sweepIntervalMs: row("SWEEP_INTERVAL", "1s", "how often expired entries are removed", duration(10, 3_600_000)),
  startupCheck: row(
    "STARTUP_CHECK",
    "auto",
    "integrity check at start: auto = after a crash or when small, up to 64 MiB; always; never",
    oneOf("auto", "always", "never"),
  ),
  walDamage: row(
    "WAL_DAMAGE",
    "refuse",
    "accept = start although acknowledged writes in the write-ahead log are damaged; a copy of it is kept",
    oneOf("refuse", "accept"),
  ),
  drainDelayMs: row("DRAIN_DELAY", "0s", "go on listening this long after SIGTERM", duration(0, 3_600_000)),
  shutdownTimeoutMs: row("SHUTDOWN_TIMEOUT", "8s", "wait this long for requests under way", duration(0, 3_600_000)),
  accessLog: row("ACCESS_LOG", "all", "all, errors (status >= 500) or off", oneOf("all", "errors", "off")),
  logLevel: row("LOG_LEVEL", "info", "debug, info, warn, error", oneOf("debug", "info", "warn", "error")),
  metrics: row(
    "METRICS",
    "auth",
    "/metrics for: auth = the admin scope, open = everybody, off",
    oneOf("auth", "open", "off"),
  ),
  tokenSources: row(
    "TOKEN_SOURCES",
    "header,query,body",
    "where app tokens may stand: any of header, query, body",
    tokenSources,
  ),
  tokenBodyAuthBytes: row(
    "TOKEN_BODY_AUTH_BYTES",
    "1MiB",
    "largest body that is searched for an app token",
    bytes(64, 512 * MiB),
  ),
  tokenMaxValueBytes: row(
    "TOKEN_MAX_VALUE_BYTES",
    "1MiB",
    "largest JSON value; at most MAX_VALUE_BYTES",
    bytes(100 * KiB, 512 * MiB),
  ),
  tokenMaxBatchKeys: row("TOKEN_MAX_BATCH_KEYS", "10000", "most keys of a batch import", integer(1, 1_000_000)),
  tokenMaxBatchBytes: row(
    "TOKEN_MAX_BATCH_BYTES",
    "8MiB",
    "largest body of a batch import; at most BODY_BUDGET_BYTES",
    bytes(64, 512 * MiB),
  ),
  tokenMaxLimit: row("TOKEN_MAX_LIMIT", "1000", "longest page of keys or values", integer(1, 100_000)),
  tokenMaxPageBytes: row(
    "TOKEN_MAX_PAGE_BYTES",
    "32MiB",
    "most bytes of values on a page; at least MAX_VALUE_BYTES",
    bytes(MiB, 64 * GiB),
  ),
  tokenMaxSortRows: row(
    "TOKEN_MAX_SORT_ROWS",
    "100000",
    "most entries that are sorted by something else than the key",
    integer(1, 10_000_000),
  ),
  tokenRateRead: row("TOKEN_RATE_READ", "1024", "reads per minute and installation; 0 = no limit", integer(0, 1e9)),
  tokenRateWrite: row("TOKEN_RATE_WRITE", "512", "writes per minute and installation; 0 = no limit", integer(0, 1e9)),
  tokenRateDelete: row(
    "TOKEN_RATE_DELETE",
    "256",
    "deletes per minute and installation; 0 = no limit",
    integer(0, 1e9),
  ),
  tokenRateBatch: row("TOKEN_RATE_BATCH", "128", "batches per minute and installation; 0 = no limit", integer(0, 1e9)),
  tokenRateAuthFail: row(
    "TOKEN_RATE_AUTH_FAIL",
    "120",
    "refused app tokens per minute and client address before 429; 0 = no limit",
    integer(0, 1e9),
  ),
  tokenCorsOrigins: row(
    "TOKEN_CORS_ORIGINS",
    "*",
    "origins whose pages may use the token API: * or a comma-separated list",
    corsOrigins,
  ),
  tokenKvAlias: row("TOKEN_KV_ALIAS", "0", "1 = serve the token API at /kv as well", isOn),
  trustedProxies: optional("TRUSTED_PROXIES", "addresses or CIDR ranges whose X-Forwarded-For is believed", subnets),
  backupDir: optional("BACKUP_DIR", "where POST /_admin/backup writes (default: DB_PATH/backups)", String),
  masterKey: optional(
    "MASTER_KEY",
    "the secret that seals stored provider keys and webhook secrets (default: JWT_SECRET)",
    String,
  ),
  masterKeyFile: optional("MASTER_KEY_FILE", "a file that holds it", String),
  masterKeyPrevious: optional("MASTER_KEY_PREVIOUS", "older ones, one per line; they open, never seal", String),
  masterKeyPreviousFile: optional("MASTER_KEY_PREVIOUS_FILE", "a file that holds them", String),
  relayAllowCidrs: optional(
    "RELAY_ALLOW_CIDRS",
    "local or private addresses that upstreams may have, as addresses or CIDR ranges",
    subnets,
  ),
  relayAllowHttp: row("RELAY_ALLOW_HTTP", "0", "1 = upstreams at public addresses may go without TLS", isOn),
  relayBootstrapKey: optional("RELAY_BOOTSTRAP_KEY", "provider key of a first channel, when there is none", String),
  relayBootstrapKeyFile: optional("RELAY_BOOTSTRAP_KEY_FILE", "a file that holds it", String),
  relayBootstrapType: row("RELAY_BOOTSTRAP_TYPE", "SiliconFlow", "the provider of that channel", provider),
  relayBootstrapBaseUrl: optional(
    "RELAY_BOOTSTRAP_BASE_URL",
    "its address (default: of the provider)",
    upstreamAddress,
  ),
  relayBootstrapToken: optional("RELAY_BOOTSTRAP_TOKEN", "key of a first relay token, when there is none", String),
  relayBootstrapTokenFile: optional("RELAY_BOOTSTRAP_TOKEN_FILE", "a file that holds it", String),
  relayBodyMax: row(
    "RELAY_BODY_MAX",
    "10MiB",
    "largest relayed body; at most BODY_BUDGET_BYTES",
    bytes(KiB, 512 * MiB),
  ),
  relayResponseMax: row(
    "RELAY_RESPONSE_MAX",
    "16MiB",
    "largest answer of an upstream that is no stream; at most BODY_BUDGET_BYTES",
    bytes(KiB, 512 * MiB),
  ),
  relayEventMax: row("RELAY_EVENT_MAX", "1MiB", "largest event of a stream", bytes(KiB, 64 * MiB)),
  relayAttemptsMax: row("RELAY_ATTEMPTS_MAX", "3", "channels that are tried for a model", integer(1, 100)),
  relayRetryTimeouts: row(
    "RELAY_RETRY_TIMEOUTS",
    "0",
    "1 = after a timeout, too, another channel is tried; the first one may have billed",
    isOn,
  ),
  relayConnectMs: row("RELAY_CONNECT_MS", "5000", "ms to connect to an upstream", integer(10, 600_000)),
  relayTtftMs: row("RELAY_TTFT_MS", "120000", "ms until the first event of a stream", integer(10, 86_400_000)),
  relayIdleMs: row("RELAY_IDLE_MS", "120000", "ms of silence in a stream", integer(10, 86_400_000)),
  relayTotalMs: row("RELAY_TOTAL_MS", "600000", "ms for a request with all its attempts", integer(10, 86_400_000)),
  relayOnClientAbort: row(
    "RELAY_ON_CLIENT_ABORT",
    "cancel",
    "when a client leaves: cancel the upstream, or drain it for its exact usage",
    oneOf("cancel", "drain"),
  ),
  relayUpstreamMax: row("RELAY_UPSTREAM_MAX", "4096", "requests to upstreams at once", integer(1, 65_535)),
  relayMaxInflight: row("RELAY_MAX_INFLIGHT", "2048", "relayed requests at once; beyond: 503", integer(1, 1_000_000)),
  relayCacheBytes: row("RELAY_CACHE_BYTES", "64MiB", "memory for kept answers; 0 = none are kept", bytes(0, 64 * GiB)),
  relayLogDays: row("RELAY_LOG_DAYS", "30", "days that the usage log is kept", integer(1, 36_500)),
  relayExposeChannel: row("RELAY_EXPOSE_CHANNEL", "0", "1 = answers name the channel they came from", isOn),
  taskAccessTtlMs: row("TASK_ACCESS_TTL", "15m", "life of a user's access token", duration(60_000, 86_400_000)),
  taskRefreshTtlMs: row("TASK_REFRESH_TTL", "30d", "longest life of a session", duration(60_000, 365 * 86_400_000)),
  taskRefreshIdleMs: row(
    "TASK_REFRESH_IDLE",
    "7d",
    "a session that is not refreshed for this long ends",
    duration(60_000, 365 * 86_400_000),
  ),
  taskRegistration: row("TASK_REGISTRATION", "open", "open = anybody may register, closed", oneOf("open", "closed")),
  passwordMin: row("PASSWORD_MIN", "6", "fewest characters of a password; 8 or more are better", integer(6, 64)),
  passwordMemoryKib: row("PASSWORD_MEMORY_KIB", "19456", "memory of one password hash", integer(8_192, 1_048_576)),
  passwordTime: row("PASSWORD_TIME", "2", "passes of one password hash", integer(1, 100)),
  passwordParallel: row("PASSWORD_PARALLEL", "auto", "password hashes at once; auto = one for each core", (text) =>
    text === "auto" ? availableParallelism() : integer(1, 256)(text),
  ),
  taskRequireIfMatch: row("TASK_REQUIRE_IF_MATCH", "0", "1 = changes of tasks need If-Match", isOn),
  taskRatePerMinute: row(
    "TASK_RATE_PER_MINUTE",
    "60",
    "requests per minute of an address, and of a user; 0 = no limit",
    integer(0, 1e9),
  ),
  taskRateIp: optional("TASK_RATE_IP", "of an address, instead, such as 60/1m", rate),
  taskRateUser: optional("TASK_RATE_USER", "of a user, instead", rate),
  taskRateLogin: row("TASK_RATE_LOGIN", "20/1m", "logins of an address; 0/1m = no limit", rate),
  taskRateRegister: row("TASK_RATE_REGISTER", "20/1h", "registrations of an address; 0/1h = no limit", rate),
  taskMaxPerUser: row("TASK_MAX_PER_USER", "200000", "most tasks of a user", integer(1, 1e9)),
  taskBodyMax: row(
    "TASK_BODY_MAX",
    "256KiB",
    "largest body of a task or comment; others 16KiB",
    bytes(16 * KiB, 16 * MiB),
  ),
  taskPurgeAfterMs: row(
    "TASK_PURGE_AFTER",
    "30d",
    "deleted tasks can be restored this long",
    duration(1000, 3650 * 86_400_000),
  ),
  taskStreamsMax: row("TASK_STREAMS_MAX", "1000", "live streams at once", integer(0, 100_000)),
  taskCache: row("TASK_CACHE", "auto", "auto = keep tasks in memory, off", oneOf("auto", "off")),
  taskCacheBytes: row("TASK_CACHE_BYTES", "16MiB", "memory for them", bytes(MiB, 64 * GiB)),
  taskCacheTtlMs: row("TASK_CACHE_TTL", "5m", "how long they are kept at most", duration(1000, 86_400_000)),
  taskCacheWarm: row("TASK_CACHE_WARM", "10000", "tasks read into it after the start; 0 = none", integer(0, 1e7)),
  taskCorsOrigins: optional("TASK_CORS_ORIGINS", "origins whose pages may use the task API", namedOrigins),
  jobsConcurrency: row(
    "JOBS_CONCURRENCY",
    "default=5,webhook=8,export=1,system=1",
    "jobs of each queue at once; none = this node runs none",
    jobSlots,
  ),
  jobsLeaseMs: row(
    "JOBS_LEASE",
    "30s",
    "a job whose node is silent for this long runs again",
    duration(1000, 3_600_000),
  ),
  jobsPollMs: row("JOBS_POLL", "1s", "how often the queues are looked at without being woken", duration(50, 60_000)),
  jobsKeepDoneMs: row("JOBS_KEEP_DONE", "24h", "finished jobs are kept this long", duration(1000, 3650 * 86_400_000)),
  jobsKeepDeadMs: row("JOBS_KEEP_DEAD", "30d", "dead jobs are kept this long", duration(1000, 3650 * 86_400_000)),
  webhookAllowCidrs: optional(
    "WEBHOOK_ALLOW_CIDRS",
    "local or private addresses that webhooks may have, as addresses or CIDR ranges",
    subnets,
  ),
  webhookTimeoutMs: row("WEBHOOK_TIMEOUT", "10s", "for one delivery of a webhook", duration(100, 60_000)),
} as const;

/** Settings that are not even read without one of these services. */
function isRead(name: string, services: ReadonlySet<ServiceName>): boolean {
  if (name.startsWith("TOKEN_")) return services.has("token");
  if (name.startsWith("RELAY_")) return services.has("relay");
  if (/^(TASK|PASSWORD|JOBS|WEBHOOK)_/.test(name)) return services.has("task");
  return !name.startsWith("MASTER_KEY") || services.has("relay") || services.has("task");
}

type Parsed = {
  readonly [Name in keyof typeof SETTINGS]: (typeof SETTINGS)[Name] extends Setting<infer T> ? T : never;
};

type SecretNames =
  | `jwtSecret${"" | "Previous"}${"" | "File"}`
  | `masterKey${"" | "Previous"}${"" | "File"}`
  | `relayBootstrap${"Key" | "Token"}File`;

/** Settings in force. `secrets[0]` signs and verifies, the others only verify; each is the exact bytes given. */
export interface Settings extends Omit<Parsed, SecretNames | "backupDir"> {
  readonly secrets: readonly Uint8Array<ArrayBuffer>[];
  /** Open what is sealed; the first one seals. */
  readonly sealingSecrets: readonly Uint8Array<ArrayBuffer>[];
  readonly backupDir: string;
  /** What is legal but should not stay so; to be logged. */
  readonly warnings: readonly string[];
}

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Reads all settings at once. `devSecret` stands in for a missing JWT_SECRET in development mode.
 * @throws ExitError (2) naming every bad setting, not only the first.
 */
export function readSettings(env: Environment, devSecret?: () => Uint8Array<ArrayBuffer>): Settings {
  const problems: string[] = [];
  const warnings: string[] = [];
  const parsed = parseRows(env, problems);
  const secrets = readSecrets(parsed, problems, devSecret);
  const { masterKey, olderMasterKeys } = readMasterKeys(parsed, problems);
  judgeStrength(parsed, secrets, masterKey, { problems, warnings });
  const bounds = boundsOf(env, parsed, problems);
  const bootstrap = readBootstrap(parsed, problems);
  refuseForeignDatabases(env, problems);
  if (parsed.backupDir !== null && isNoDirectory(parsed.backupDir)) {
    problems.push(`BACKUP_DIR must be a directory; ${parsed.backupDir} is none`);
  }
  const unknown = unknownSettings(env, new Set(Object.values(SETTINGS).map((setting) => setting.env)));
  if (unknown !== null) warnings.push(unknown);
  if (problems.length > 0) {
    throw new ExitError(
      EXIT.usage,
      `These settings need attention:\n${problems.map((line) => `  - ${line}`).join("\n")}`,
    );
  }
  return {
    ...parsed,
    ...bounds,
    secrets,
    warnings,
    ...bootstrap,
    // Without a master key the secret of today seals, though older master keys may still open.
    sealingSecrets: [...(masterKey === null ? secrets.slice(0, 1) : [masterKey]), ...olderMasterKeys, ...secrets],
    backupDir: parsed.backupDir ?? join(parsed.dbPath, "backups"),
  };
}

/** What is not there yet, or may not be looked at, is for the first backup to find out. */
function isNoDirectory(path: string): boolean {
  try {
    return !statSync(path).isDirectory();
  } catch {
    return false;
  }
}

/** Data must not land in the embedded file of somebody who believes it is elsewhere. */
function refuseForeignDatabases(env: Environment, problems: string[]): void {
  for (const kind of ["DATABASE", "REDIS"] as const) {
    const [url, host] = [`${kind}_URL`, `${kind}_HOST`];
    if (env[url]) problems.push(`${url} is set, but this version works with the embedded store only; unset it`);
    else if (env[host]) problems.push(`${host} is not read; its replacement is ${url}, with everything in one address`);
  }
}

function judgeStrength(
  { mode, allowWeakSecret, services }: Parsed,
  [signing, ...older]: readonly Uint8Array[],
  masterKey: Uint8Array | null,
  { problems, warnings }: { problems: string[]; warnings: string[] },
): void {
  const judge = (weak: string, remedy: string) => {
    if (mode === "release" && !allowWeakSecret) {
      problems.push(`${weak}. ${remedy} ALLOW_WEAK_SECRET=1 to accept the risk`);
    } else warnings.push(weak);
  };
  const weakSizes = older.map((secret) => secret.length).filter((bytes) => bytes < SECRET_BYTES_MIN);
  // An older one forges tokens as well as the one that signs. One that opens what is sealed, and no more, does not.
  if (weakSizes.length > 0) {
    const which = `secrets under ${SECRET_BYTES_MIN} bytes (${weakSizes.join(", ")})`;
    judge(`JWT_SECRET_PREVIOUS holds ${which}; whoever guesses one can sign tokens`, "Remove them, or set");
  }
  if (masterKey !== null && masterKey.length < SECRET_BYTES_MIN) {
    problems.push(
      `MASTER_KEY has ${masterKey.length} bytes; use ${SECRET_BYTES_MIN} or more (openssl rand -base64 48)`,
    );
  }
  if (signing === undefined || signing.length >= SECRET_BYTES_MIN) return;
  judge(
    `JWT_SECRET has ${signing.length} bytes; use ${SECRET_BYTES_MIN} or more (openssl rand -base64 48)`,
    "Set a longer one, or",
  );
  if (masterKey === null && (services.has("relay") || services.has("task"))) {
    const what = "keys of channels and secrets of webhooks";
    warnings.push(`${what} are sealed with JWT_SECRET, and only as strong; set MASTER_KEY or a longer one`);
  }
}

/** Bounds of which only one was set follow the other. */
function boundsOf(env: Environment, parsed: Parsed, problems: string[]) {
  const { maxValueBytes, bodyBudgetBytes } = parsed;
  if (bodyBudgetBytes < maxValueBytes) {
    const now = `${formatByteSize(bodyBudgetBytes)}${env.BODY_BUDGET_BYTES ? "" : " by default"}`;
    problems.push(
      `BODY_BUDGET_BYTES must be at least MAX_VALUE_BYTES, or no value of that size could be stored; it is ${now}`,
    );
  }
  const follow = (name: string, value: number, followed: number) => (env[name] ? value : followed);
  const tokenMaxValueBytes = follow(
    "TOKEN_MAX_VALUE_BYTES",
    parsed.tokenMaxValueBytes,
    Math.min(parsed.tokenMaxValueBytes, maxValueBytes),
  );
  const tokenMaxPageBytes = follow(
    "TOKEN_MAX_PAGE_BYTES",
    parsed.tokenMaxPageBytes,
    Math.max(parsed.tokenMaxPageBytes, maxValueBytes),
  );
  const hasApps = parsed.services.has("token");
  if (hasApps && tokenMaxValueBytes > maxValueBytes) {
    problems.push("TOKEN_MAX_VALUE_BYTES must be at most MAX_VALUE_BYTES");
  }
  if (hasApps && tokenMaxPageBytes < maxValueBytes) {
    problems.push("TOKEN_MAX_PAGE_BYTES must be at least MAX_VALUE_BYTES, or one value could fill no page");
  }
  const underBudget = (service: ServiceName, name: string, value: number) => {
    const bound = follow(name, value, Math.min(value, bodyBudgetBytes));
    if (parsed.services.has(service) && bound > bodyBudgetBytes) {
      problems.push(`${name} must be at most BODY_BUDGET_BYTES`);
    }
    return bound;
  };
  const tokenMaxBatchBytes = underBudget("token", "TOKEN_MAX_BATCH_BYTES", parsed.tokenMaxBatchBytes);
  const relayBodyMax = underBudget("relay", "RELAY_BODY_MAX", parsed.relayBodyMax);
  const relayResponseMax = underBudget("relay", "RELAY_RESPONSE_MAX", parsed.relayResponseMax);
  return { tokenMaxValueBytes, tokenMaxPageBytes, tokenMaxBatchBytes, relayBodyMax, relayResponseMax };
}

/** Rows of the table for the help of a command: what each variable means. */
export function environmentOf(...names: readonly (keyof typeof SETTINGS)[]): Readonly<Record<string, string>> {
  const rows = names.map((name): Setting<unknown> => SETTINGS[name]);
  return Object.fromEntries(
    rows.map(({ env, meaning, fallback }) => [env, fallback === null ? meaning : `${meaning}; default ${fallback}`]),
  );
}

/** The secret that signs, for commands that need no other setting; null = none is set. @throws ExitError (2) */
export function readJwtSecret(env: Environment): Uint8Array<ArrayBuffer> | null {
  const { jwtSecret, jwtSecretFile } = SETTINGS;
  const problems: string[] = [];
  const secret = readSecret(jwtSecret.env, env[jwtSecret.env] || null, env[jwtSecretFile.env] || null, problems);
  if (problems.length > 0) throw new ExitError(EXIT.usage, `${problems.join(". ")}.`);
  return secret;
}

/**
 * How many requests to upstreams a server with this environment may have under way at once; null = none, or a setting
 * is bad, which reading all of them will tell.
 */
export function readUpstreamMax(env: Environment): number | null {
  const { services: named, relayUpstreamMax } = SETTINGS;
  try {
    if (!named.parse(env[named.env] || named.fallback!).has("relay")) return null;
    return relayUpstreamMax.parse(env[relayUpstreamMax.env] || relayUpstreamMax.fallback!);
  } catch {
    return null;
  }
}

/** Where the data lives, for commands that need no other setting. */
export function readDbPath(env: Environment): string {
  return env[SETTINGS.dbPath.env] || SETTINGS.dbPath.fallback!;
}

/** The largest value, for commands that need no other setting. @throws ExitError (2) */
export function readMaxValueBytes(env: Environment): number {
  return readBytes(env, SETTINGS.maxValueBytes);
}

/** What the write-ahead log may grow to, likewise. @throws ExitError (2) */
export function readWalLimitBytes(env: Environment): number {
  return readBytes(env, SETTINGS.walLimitBytes);
}

/** What is kept free for a full volume, likewise. @throws ExitError (2) */
export function readReserveBytes(env: Environment): number {
  return readBytes(env, SETTINGS.reserveBytes);
}

/** What the database file may grow to, likewise; 0 = no limit. @throws ExitError (2) */
export function readDatabaseBytesMax(env: Environment): number {
  return readBytes(env, SETTINGS.dbMaxBytes);
}

function readBytes(env: Environment, { env: name, fallback, parse }: Setting<number>): number {
  try {
    return parse(env[name] || fallback!);
  } catch (error) {
    throw new ExitError(EXIT.usage, `${name} must be ${(error as Error).message}.`);
  }
}

function parseRows(env: Environment, problems: string[]): Parsed {
  // Before all others: it says which of them are read. What is wrong with it is told with them.
  const services = parseRow(SETTINGS.services, env, []);
  const parsed: Record<string, unknown> = {};
  for (const [name, setting] of Object.entries<Setting<unknown>>(SETTINGS)) {
    parsed[name] = parseRow(setting, isRead(setting.env, services) ? env : {}, problems);
  }
  return parsed as Parsed;
}

/** The default stands in for a bad value, so that what depends on it is judged as well. */
function parseRow<T>(setting: Setting<T>, env: Environment, problems: string[]): T {
  const { env: name, fallback, parse } = setting;
  const text = env[name];
  try {
    if (text) return parse(text);
  } catch (error) {
    problems.push(`${name} must be ${(error as Error).message}${notThis(setting, text!)}`);
  }
  return fallback === null ? (null as T) : parse(fallback);
}

/** The text that was refused, unless it may hold a secret: a user name with its password, a key. */
function notThis({ parse }: Setting<unknown>, text: string): string {
  return parse === upstreamAddress || text.includes("@") ? "" : `, not "${text.slice(0, 64)}"`;
}

function readSecrets(
  parsed: Parsed,
  problems: string[],
  devSecret?: () => Uint8Array<ArrayBuffer>,
): Uint8Array<ArrayBuffer>[] {
  const current = readSecret("JWT_SECRET", parsed.jwtSecret, parsed.jwtSecretFile, problems);
  const previous = readSecret("JWT_SECRET_PREVIOUS", parsed.jwtSecretPrevious, parsed.jwtSecretPreviousFile, problems);
  const older = secretsOf("JWT_SECRET_PREVIOUS", previous, problems);
  refuseBlank("JWT_SECRET", current, problems);
  if (current !== null) return [current, ...older];
  if (parsed.jwtSecret !== null || parsed.jwtSecretFile !== null) return [];
  if (devSecret !== undefined) return [devSecret(), ...older];
  problems.push('JWT_SECRET is missing. Set it, for example: export JWT_SECRET="$(openssl rand -base64 48)"');
  return [];
}

function readMasterKeys(parsed: Parsed, problems: string[]) {
  const { masterKeyFile, masterKeyPrevious, masterKeyPreviousFile } = parsed;
  const masterKey = readSecret("MASTER_KEY", parsed.masterKey, masterKeyFile, problems);
  const previous = readSecret("MASTER_KEY_PREVIOUS", masterKeyPrevious, masterKeyPreviousFile, problems);
  refuseBlank("MASTER_KEY", masterKey, problems);
  return { masterKey, olderMasterKeys: secretsOf("MASTER_KEY_PREVIOUS", previous, problems) };
}

/** The keys of the first channel and the first relay token. */
function readBootstrap(parsed: Parsed, problems: string[]) {
  const visible = (env: string, text: string | null, file: string | null, [min, max]: [number, number]) => {
    const bytes = readSecret(env, text, file, problems);
    if (bytes === null) return null;
    const isVisible = bytes.every((byte) => byte > 0x20 && byte < 0x7f);
    if (isVisible && bytes.length >= min && bytes.length <= max) return new TextDecoder().decode(bytes);
    problems.push(`${env} must have ${min} to ${max} visible ASCII characters`);
    return null;
  };
  const { relayBootstrapType: type, relayBootstrapBaseUrl } = parsed;
  const { relayBootstrapKey: key, relayBootstrapKeyFile, relayBootstrapToken, relayBootstrapTokenFile } = parsed;
  const relayBootstrapKey = visible("RELAY_BOOTSTRAP_KEY", key, relayBootstrapKeyFile, [1, 4096]);
  if (relayBootstrapKey !== null && relayBootstrapBaseUrl === null && (type === "Ollama" || type === "Custom")) {
    problems.push(`RELAY_BOOTSTRAP_BASE_URL is missing: the type ${type} has no address of its own`);
  }
  return {
    relayBootstrapKey,
    relayBootstrapToken: visible("RELAY_BOOTSTRAP_TOKEN", relayBootstrapToken, relayBootstrapTokenFile, [8, 256]),
  };
}

function readSecret(
  env: string,
  text: string | null,
  file: string | null,
  problems: string[],
): Uint8Array<ArrayBuffer> | null {
  if (text !== null && file !== null) problems.push(`${env} and ${env}_FILE are both set; keep one of them`);
  // What the runtime makes of bytes that are no UTF-8: different secrets would become one.
  else if (text?.includes("\ufffd"))
    problems.push(`${env} is not UTF-8; put it into a file and name that in ${env}_FILE`);
  else if (text !== null) return new TextEncoder().encode(text);
  else if (file !== null) {
    try {
      const secret = dropLineEnd(new Uint8Array(readFileSync(file)));
      if (secret.length > 0) return secret;
      problems.push(`${env}_FILE (${file}) is empty`);
    } catch (error) {
      problems.push(`${env}_FILE (${file}) cannot be read: ${fileReason(error)}`);
    }
  }
  return null;
}

/** A secret read from a file without the one line end that editors and `echo` add. */
export function dropLineEnd(text: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  let end = text.length;
  if (text[end - 1] === 0x0a) end -= text[end - 2] === 0x0d ? 2 : 1;
  return text.slice(0, end);
}

/** One secret per line; lines with nothing in them are none. */
function secretsOf(env: string, text: Uint8Array<ArrayBuffer> | null, problems: string[]): Uint8Array<ArrayBuffer>[] {
  const secrets = text === null ? [] : splitLines(text);
  if (secrets.some(isBlank)) {
    problems.push(`${env} holds a line of spaces alone, which would count as a secret; remove it`);
  }
  return secrets;
}

function refuseBlank(env: string, secret: Uint8Array | null, problems: string[]): void {
  if (secret !== null && isBlank(secret)) problems.push(`${env} holds nothing but spaces`);
}

function isBlank(secret: Uint8Array): boolean {
  return new TextDecoder().decode(secret).trim() === "";
}

function splitLines(text: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer>[] {
  const lines: Uint8Array<ArrayBuffer>[] = [];
  let start = 0;
  for (let at = 0; at <= text.length; at++) {
    if (at < text.length && text[at] !== 0x0a) continue;
    const end = text[at - 1] === 0x0d ? at - 1 : at;
    if (end > start) lines.push(text.slice(start, end));
    start = at + 1;
  }
  return lines;
}
