// Sends deliveries to the receivers of webhooks, signed, and reports what became of each attempt.

import { OutboundFailure, type OutboundFailureKind, type OutboundTransport } from "../http/outbound-transport.ts";
import { JobFailure, type RunningJob } from "../jobs/job-kinds.ts";
import { KiB } from "../shared/bounds.ts";
import type { Clock } from "../shared/clock.ts";
import type { DeliveryPayload } from "./webhook-delivery-units.ts";
import type { AttemptReport } from "./webhook-settlement-units.ts";
import { signedHeaders } from "./webhook-signature.ts";
import type { DeliveryRow, WebhookRow, WebhookStore } from "./webhook-store.ts";

const REPLY_READ_BYTES_MAX = 4 * KiB;
const EXCERPT_BYTES_MAX = KiB;
/** For the beginning of a reply, once its status is known: a reply that never ends must not hold its slot. */
const EXCERPT_MS_MAX = 500;
const GONE = 410;
const FAILURES: Readonly<Record<Exclude<OutboundFailureKind, "aborted">, string>> = {
  unreachable: "the receiver could not be reached",
  refused_address: "the URL leads to an address that is not allowed",
  bad_response: "what the receiver sent is not an HTTP answer that is understood here",
};
const SKIPPED: AttemptReport = { status: null, ms: 0, excerpt: null, isSkipped: true };

export interface SenderParts {
  readonly webhooks: WebhookStore;
  readonly outbound: OutboundTransport;
  /** For one attempt, from the look-up of the name to what is read of the reply. */
  readonly timeoutMs: number;
  readonly clock: Clock;
}

export class WebhookSender {
  readonly #parts: SenderParts;

  constructor(parts: SenderParts) {
    this.#parts = parts;
  }

  /**
   * One attempt. Null when hook or delivery are gone; a report when the receiver has taken it.
   * @throws JobFailure with a report; fatal when no further attempt makes sense
   */
  async send({ payload, signal }: Pick<RunningJob, "payload" | "signal">): Promise<AttemptReport | null> {
    const { webhooks, clock } = this.#parts;
    const found = await webhooks.delivery((payload as DeliveryPayload).deliveryId);
    if (found === null) return null;
    const { delivery, webhook, isUserActive } = found;
    if (webhook.active === 0) throw new JobFailure("the webhook is not active", { report: SKIPPED, isFatal: true });
    if (!isUserActive) throw new JobFailure("the account is disabled", { report: SKIPPED, isFatal: true });
    const secrets = webhooks.signingSecrets(webhook, clock());
    if (secrets.length === 0) {
      throw new JobFailure("no secret of this server opens the secret of the webhook", { report: SKIPPED });
    }
    const report = await this.#post(webhook, delivery, secrets, signal);
    const status = report.status!;
    if (status >= 200 && status < 300) return report;
    throw new JobFailure(`the receiver answered ${status}`, { report, isFatal: status === GONE });
  }

  async #post(
    { url }: WebhookRow,
    { id, body }: DeliveryRow,
    secrets: readonly string[],
    ending: AbortSignal,
  ): Promise<AttemptReport> {
    const { outbound, timeoutMs, clock } = this.#parts;
    const startedMs = performance.now();
    const signal = AbortSignal.any([ending, AbortSignal.timeout(timeoutMs)]);
    const reportOf = (status: number | null, excerpt: string | null): AttemptReport => {
      return { status, excerpt, ms: Math.round(performance.now() - startedMs), isSkipped: false };
    };
    const signed = signedHeaders({ id, timestampS: Math.floor(clock() / 1000), body }, secrets);
    try {
      const answer = await outbound.send({ url, method: "POST", headers: signed, body, signal });
      return reportOf(answer.status, await excerptOf(answer.body));
    } catch (error) {
      if (!(error instanceof OutboundFailure)) throw error;
      throw new JobFailure(wordsFor(error, ending, timeoutMs), { report: reportOf(null, null), cause: error });
    }
  }
}

function wordsFor({ kind, code }: OutboundFailure, ending: AbortSignal, timeoutMs: number): string {
  if (kind !== "aborted") return FAILURES[kind] + (code !== null && /^[A-Z_]+$/.test(code) ? ` (${code})` : "");
  return ending.aborted ? "the attempt was ended by this server" : `no answer within ${timeoutMs} ms`;
}

/** The beginning of a reply. Its status is what counts: a body that breaks off, or stays away, is as good as none. */
async function excerptOf(body: ReadableStream<Uint8Array> | null): Promise<string | null> {
  if (body === null) return null;
  const reader = body.getReader();
  const pieces: Uint8Array[] = [];
  const late = Promise.withResolvers<null>();
  const timer = setTimeout(() => late.resolve(null), EXCERPT_MS_MAX);
  try {
    for (let bytes = 0; bytes < REPLY_READ_BYTES_MAX; ) {
      const piece = await Promise.race([reader.read(), late.promise]);
      if (piece === null || piece.done) break;
      pieces.push(piece.value);
      bytes += piece.value.length;
    }
  } catch {
    // What came before is kept.
  } finally {
    clearTimeout(timer);
  }
  reader.cancel().catch(() => undefined);
  const text = new TextDecoder().decode(Buffer.concat(pieces).subarray(0, EXCERPT_BYTES_MAX));
  return text === "" ? null : text.replaceAll("\0", "�");
}
