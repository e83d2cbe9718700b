// Signed deliveries: what the published verification accepts, and what it does not.

import { expect, test } from "bun:test";
import { createWebhookSecret, signedHeaders } from "../../src/task/webhook-signature.ts";
import { isAccepted } from "../support/webhook-receiver.ts";

const nowS = () => Math.floor(Date.now() / 1000);
const message = (body = '{"type":"task.created","emoji":"任务 ✅"}') => ({ id: "msg_1", timestampS: nowS(), body });

test("the example of the published scheme has its published signature", () => {
  const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
  const signed = { id: "msg_p5jXN8AQM9LWM0D4loKWxJek", timestampS: 1614265330, body: '{"test": 2432232314}' };
  expect(signedHeaders(signed, [secret])).toEqual({
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
  });
});

test("a secret is 32 random bytes that say what they are", () => {
  const [first, second] = [createWebhookSecret(), createWebhookSecret()];
  expect(first).toMatch(/^whsec_[A-Za-z0-9+/]{43}=$/);
  expect(first).not.toBe(second);
});

test("a delivery is accepted with each secret that signed it, and with no other", () => {
  const [first, second, third] = [createWebhookSecret(), createWebhookSecret(), createWebhookSecret()];
  const sent = { headers: signedHeaders(message(), [first, second]), body: message().body };
  expect([first, second, third].map((secret) => isAccepted(sent, secret))).toEqual([true, true, false]);
});

test("a changed byte of id, time, body or signature is noticed", () => {
  const secret = createWebhookSecret();
  const signed = message();
  const headers = signedHeaders(signed, [secret]);
  const { body } = signed;
  expect(isAccepted({ headers, body }, secret)).toBe(true);
  const changed = [
    { headers, body: `${body} ` },
    { headers, body: body.replace("created", "creatad") },
    { headers: { ...headers, "webhook-id": "msg_2" }, body },
    { headers: { ...headers, "webhook-timestamp": `${signed.timestampS - 1}` }, body },
    { headers: { ...headers, "webhook-signature": headers["webhook-signature"]!.replace(/,(.)/, ",x$1") }, body },
  ];
  for (const sent of changed) expect([sent, isAccepted(sent, secret)]).toEqual([sent, false]);
});
