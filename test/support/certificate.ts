// A certificate of its own for a test, made where the test runs.

import { readFileSync } from "node:fs";
import { isIP } from "node:net";
import { tempDir } from "./temp-dir.ts";

export interface Certificate {
  /** PEM. The certificate is its own authority. */
  readonly key: string;
  readonly cert: string;
}

/** For the given names and addresses, valid from now on for a day. @throws Error without the program openssl */
export function makeCertificate(...names: readonly string[]): Certificate {
  using dir = tempDir();
  const [key, cert] = [dir.file("key.pem"), dir.file("cert.pem")];
  const made = Bun.spawnSync(
    [
      "openssl",
      "req",
      "-x509",
      "-newkey",
      "ec",
      "-pkeyopt",
      "ec_paramgen_curve:prime256v1",
      "-nodes",
      "-days",
      "1",
      "-subj",
      `/CN=${names[0]}`,
      "-keyout",
      key,
      "-out",
      cert,
      "-addext",
      `subjectAltName=${names.map((name) => `${isIP(name) === 0 ? "DNS" : "IP"}:${name}`).join(",")}`,
    ],
    { stdout: "ignore", stderr: "pipe" },
  );
  if (made.exitCode !== 0) throw new Error(made.stderr.toString());
  return { key: readFileSync(key, "utf8"), cert: readFileSync(cert, "utf8") };
}
