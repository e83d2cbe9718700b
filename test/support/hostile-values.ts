// Names that break stores: every suite that stores under a name uses these.

/** Text that is legal in a key and, without its slashes and control characters, in a bucket. */
const HOSTILE_NAMES: readonly string[] = [
  ...["%", "%%", "%ff", "%25", "%2F", "%00", "+", "a b", " ", "trailing ", " leading"],
  ...["_", "__proto__", "constructor", "toString", "hasOwnProperty", "null", "undefined", "true", "NaN"],
  ...[
    "*",
    "**",
    "b*",
    "?",
    "#",
    "&",
    "=",
    ";",
    "a=b&c=d",
    "a?b#c",
    ":",
    "a:b",
    "::",
    "|",
    "~",
    "^",
    "`",
    "@",
    "!",
    "$&",
  ],
  ...["'", '"', "''", "' OR 1=1 --", '";DROP TABLE kv', "\\", "a\\b", "<script>", "{}", "[]", "()", ",", "a,b", "[1"],
  ...["0", "007", "-1", "1e3", "9007199254740993", "...", ".a", "a.", "..a", "a..b", "-", "--help"],
  ...["A", "a", "ä", "ß", "İ", "ı", "ﬁ", "\u00e9", "e\u0301", "\u0301", "日本", "\u202e", "\ufeff", "\u2028", "\u200b"],
  ...["😀", "👩‍👩‍👧", "\ud7ff", "\ue000", "\uffff", "\u{10000}", "\u{10ffff}", "\u{10ffff}\u{10ffff}", "a\u{10ffff}"],
];

/** Each is stored and comes back byte for byte. */
export const HOSTILE_KEYS: readonly string[] = [
  ...HOSTILE_NAMES,
  ...["\r\n", "a\r\nX-Injected: 1", "\n", "\t", "\x01", "\x1b[31m", "\x7f", "\x80", "\x9f", "\u0085"],
  ...["/", "//", "/k", "k/", "a//b", "user/1", "a/.../b", "a/.b/c", "_list", "_meta/b/k", "http://h/b/k"],
  ...["k".repeat(1023), "k".repeat(1024), "é".repeat(512), "😀".repeat(256)],
];

/** Each is stored and comes back byte for byte; none begins with an underscore. */
export const HOSTILE_BUCKETS: readonly string[] = [
  ...HOSTILE_NAMES.filter((name) => !name.startsWith("_")),
  ...["b".repeat(127), "b".repeat(128), "é".repeat(64), "😀".repeat(32), "livez", "metrics", "openapi.json"],
];

/** Percent-encoded keys that are refused, and the code of the refusal. */
export const REFUSED_KEYS: readonly (readonly [path: string, code: "key_invalid" | "path_invalid" | "key_empty"])[] = [
  ["%00", "key_invalid"],
  ["a%00b", "key_invalid"],
  ["%EF%BF%BD", "key_invalid"],
  ["a%EF%BF%BDb", "key_invalid"],
  ["a%2F..%2Fc", "key_invalid"],
  ["a%2F.%2Fc", "key_invalid"],
  ["..%2Fc", "key_invalid"],
  [".%2Fc", "key_invalid"],
  ["a%2F..", "key_invalid"],
  ["a%2F%2E", "key_invalid"],
  ["a/..%2F..%2Fc", "key_invalid"],
  ["k".repeat(1025), "key_invalid"],
  [`${"%C3%A9".repeat(512)}k`, "key_invalid"],
  ["%F0%9F%98%80".repeat(257), "key_invalid"],
  ["%ff", "path_invalid"],
  ["%zz", "path_invalid"],
  ["%", "path_invalid"],
  ["%4", "path_invalid"],
  ["a%", "path_invalid"],
  ["a/%/b", "path_invalid"],
  ["%C3", "path_invalid"],
  ["%C3%28", "path_invalid"],
  ["%C0%AF", "path_invalid"],
  ["%E0%80%AF", "path_invalid"],
  ["%ED%A0%80", "path_invalid"],
  ["%F4%90%80%80", "path_invalid"],
  ["%u0041", "path_invalid"],
  ["", "key_empty"],
];

/** Percent-encoded buckets that are refused, and the code of the refusal. */
export const REFUSED_BUCKETS: readonly (readonly [
  path: string,
  code: "bucket_invalid" | "path_invalid" | "bucket_reserved",
])[] = [
  ["%00", "bucket_invalid"],
  ["a%00b", "bucket_invalid"],
  ["%0A", "bucket_invalid"],
  ["%0D%0A", "bucket_invalid"],
  ["%1F", "bucket_invalid"],
  ["%7F", "bucket_invalid"],
  ["%C2%80", "bucket_invalid"],
  ["%C2%9F", "bucket_invalid"],
  ["%2F", "bucket_invalid"],
  ["a%2Fb", "bucket_invalid"],
  ["..%2F", "bucket_invalid"],
  ["%EF%BF%BD", "bucket_invalid"],
  ["b".repeat(129), "bucket_invalid"],
  [`${"%C3%A9".repeat(64)}b`, "bucket_invalid"],
  ["%ff", "path_invalid"],
  ["%zz", "path_invalid"],
  ["%", "path_invalid"],
  ["%ED%A0%80", "path_invalid"],
  ["%C0%AF", "path_invalid"],
  ["_x", "bucket_reserved"],
  ["_", "bucket_reserved"],
  ["__proto__", "bucket_reserved"],
  ["%5Fx", "bucket_reserved"],
  ["%5flist", "bucket_reserved"],
  ["_List", "bucket_reserved"],
];

/** Names that a careless comparison would confuse with `name`. */
export function neighboursOf(name: string): string[] {
  const shorter = [...name].slice(0, -1).join("");
  const near = [`${name}2`, `${name}_`, `${name}%`, `2${name}`, name.toUpperCase(), name.toLowerCase(), shorter];
  const normalised = [name.normalize("NFC"), name.normalize("NFD"), name.trim(), name.replaceAll("_", "x")];
  return [...new Set([...near, ...normalised])].filter((neighbour) => neighbour !== name && neighbour !== "");
}
