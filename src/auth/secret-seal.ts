// Secrets that have to be read again, such as the keys of upstreams: sealed before they are stored.

import { createCipheriv, createDecipheriv, createHash, hkdfSync, randomBytes } from "node:crypto";

/** One derived key. Plain data: it may cross a thread border, never leave the process. */
export interface SealingKey {
  /** 8 hexadecimal digits that name the key without telling it. */
  readonly kid: string;
  /** 32 bytes. */
  readonly bytes: Uint8Array;
}

const CIPHER = "aes-256-gcm";
const VERSION = "v1";
const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/** A sealing key for each secret, in their order; a secret that is given twice counts once. */
export function deriveSealingKeys(
  secrets: readonly Uint8Array[],
  salt: Uint8Array,
  info: string,
): readonly SealingKey[] {
  const keys = secrets.map((secret) => {
    const bytes = new Uint8Array(hkdfSync("sha256", secret, salt, info, KEY_BYTES));
    return { kid: createHash("sha256").update(bytes).digest("hex").slice(0, 8), bytes };
  });
  return keys.filter(({ kid }, index) => keys.findIndex((key) => key.kid === kid) === index);
}

/** Seals with the first key of its ring, opens with any of them. */
export class SecretSeal {
  /** The current one first; never empty. */
  readonly ring: readonly SealingKey[];

  constructor(ring: readonly SealingKey[]) {
    this.ring = ring;
  }

  /** Of the key that seals. */
  get kid(): string {
    return this.ring[0]!.kid;
  }

  /**
   * `v1:<kid>:<nonce>:<ciphertext and tag>`, the last two as base64url. `context` says where the value belongs: it
   * opens nowhere else.
   */
  seal(plain: string, context: string): string {
    const { kid, bytes } = this.ring[0]!;
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv(CIPHER, bytes, nonce, { authTagLength: TAG_BYTES }).setAAD(Buffer.from(context));
    const sealed = Buffer.concat([cipher.update(plain, "utf8"), cipher.final(), cipher.getAuthTag()]);
    return [VERSION, kid, nonce.toString("base64url"), sealed.toString("base64url")].join(":");
  }

  /** Null when no key of the ring opens it, it was altered, or it belongs elsewhere. */
  open(sealed: string, context: string): string | null {
    const [version, kid, nonce = "", text = "", ...rest] = sealed.split(":");
    const key = this.ring.find((candidate) => candidate.kid === kid);
    const bytes = Buffer.from(text, "base64url");
    if (version !== VERSION || key === undefined || rest.length > 0 || bytes.length < TAG_BYTES) return null;
    try {
      const decipher = createDecipheriv(CIPHER, key.bytes, Buffer.from(nonce, "base64url"), {
        authTagLength: TAG_BYTES,
      });
      decipher.setAAD(Buffer.from(context)).setAuthTag(bytes.subarray(-TAG_BYTES));
      return decipher.update(bytes.subarray(0, -TAG_BYTES), undefined, "utf8") + decipher.final("utf8");
    } catch {
      return null;
    }
  }

  /** Whether another key than the current one has sealed it. */
  needsReseal(sealed: string): boolean {
    return kidOf(sealed) !== this.kid;
  }
}

/** Of the key that has sealed it. */
export function kidOf(sealed: string): string | undefined {
  return sealed.split(":")[1];
}
