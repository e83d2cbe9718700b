// The requests of a load as a few plain fields, so that two generators can make the identical stream of them.

export interface RequestStream {
  readonly method: "GET" | "POST";
  readonly bucket: string;
  /**
   * Which of the key numbers `first` … `first + count - 1` come: "ascending" each once and in order, "cycle" round and
   * round, "random" any of them.
   */
  readonly order: "ascending" | "cycle" | "random";
  readonly first: number;
  readonly count: number;
  /** Of the body of a POST, which is a JSON string; at least 2. */
  readonly valueBytes: number;
  readonly token: string;
}

/** The same request over and over. */
export interface FixedRequest {
  /** POST unless given. */
  readonly method?: "GET" | "POST";
  readonly path: string;
  /** Besides Host and Content-Length. */
  readonly headers: Readonly<Record<string, string>>;
  /** ASCII; empty of a GET. */
  readonly body: string;
}

export const KEY_GROUP = 1000;
/** Ends the part of a key name that a thousand keys have in common. */
export const KEY_DELIMITER = "-";
/** Key numbers stay below this, so that all names have one length and their byte order is that of the numbers. */
export const KEY_NUMBER_MAX = 900_000 * KEY_GROUP;
export const KEY_NAME_BYTES = 11;

/** `100000-1000`, `100000-1001` … : made without padding, which is slow in the other generator's language. */
export function keyName(number: number): string {
  return `${100_000 + Math.floor(number / KEY_GROUP)}${KEY_DELIMITER}${1000 + (number % KEY_GROUP)}`;
}

/** The bytes of one request after the other. wrk-load.lua makes the same, wrk-fixed.lua those of a fixed one. */
export function requestMaker(stream: RequestStream | FixedRequest): () => Uint8Array {
  if ("body" in stream) {
    const request = fixedRequest(stream);
    return () => request;
  }
  const { method, bucket, order, first, count, valueBytes, token } = stream;
  const head = `${method} /${bucket}/`;
  const length = method === "POST" ? `Content-Length: ${valueBytes}\r\n` : "";
  const body = method === "POST" ? JSON.stringify("x".repeat(valueBytes - 2)) : "";
  const tail = ` HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer ${token}\r\n${length}\r\n${body}`;
  let next = 0;
  return () => {
    const offset = order === "random" ? Math.floor(Math.random() * count) : next++ % count;
    return Buffer.from(`${head}${keyName(first + offset)}${tail}`, "latin1");
  };
}

/** The bytes of a request. */
export function fixedRequest({ method = "POST", path, headers, body }: FixedRequest): Uint8Array {
  const length = method === "GET" ? {} : { "Content-Length": `${body.length}` };
  const lines = Object.entries({ Host: "127.0.0.1", ...headers, ...length });
  const head = lines.map(([name, value]) => `${name}: ${value}\r\n`).join("");
  return Buffer.from(`${method} ${path} HTTP/1.1\r\n${head}\r\n${body}`, "latin1");
}
