// The address of an upstream: what is accepted, and where requests go.

import { expect, test } from "bun:test";
import { apiRootOf, originOf, requireBaseUrl } from "../../src/relay/upstream-url.ts";
import { refusalOf } from "../support/refusal-of.ts";

const LONG = `https://api.example/${"a".repeat(2048 - "https://api.example/".length)}`;

test("an http or https address without anything else is taken as it is written", () => {
  for (const text of [
    "https://api.openai.com/v1",
    "http://127.0.0.1:4010",
    "HTTPS://API.Example",
    "https://api.example/openai/v1/",
    "https://bücher.example",
    "http://[::1]:8080/v1",
    "https://api.example/a@b",
    LONG,
  ]) {
    expect(requireBaseUrl(text)).toBe(text);
  }
});

test("anything else is refused with the field that is wrong", () => {
  for (const text of [
    "",
    "api.openai.com",
    "ftp://api.example",
    "file:///etc/passwd",
    "https:api.example",
    "https:///api.example",
    "https://",
    "https://user@api.example",
    "https://user:password@api.example",
    "https://@api.example",
    "https://api.example?",
    "https://api.example/?x=1",
    "https://api.example/#",
    "https://api.example#x",
    "https://?x",
    " https://api.example",
    "https://api.example ",
    "https://api.exa\tmple",
    "https://api.example/\n",
    "https://evil.example\\@api.example",
    "https://api.example/\u0000",
    "https://api example",
    "https://256.1.1.1",
    "https://api.example:99999",
    "http://[::1",
    `${LONG}a`,
  ]) {
    expect([text, refusalOf(() => requireBaseUrl(text))]).toEqual([text, "invalid_field"]);
  }
});

test("a version segment completes an address, otherwise /v1 is added", () => {
  for (const [base, url] of [
    ["https://api.example", "https://api.example/v1/chat/completions"],
    ["https://api.example/", "https://api.example/v1/chat/completions"],
    ["https://api.example/v1", "https://api.example/v1/chat/completions"],
    ["https://api.example/v1/", "https://api.example/v1/chat/completions"],
    ["https://api.example/v1//", "https://api.example/v1/chat/completions"],
    ["https://api.example/v3/openai", "https://api.example/v3/openai/chat/completions"],
    ["https://api.example/openai/v1", "https://api.example/openai/v1/chat/completions"],
    ["https://api.example/api/paas/v4", "https://api.example/api/paas/v4/chat/completions"],
    ["https://api.example/v1beta/openai/", "https://api.example/v1beta/openai/chat/completions"],
    ["https://api.example/V2", "https://api.example/V2/chat/completions"],
    ["https://api.example/v1alpha2", "https://api.example/v1alpha2/chat/completions"],
    ["https://api.example/openai", "https://api.example/openai/v1/chat/completions"],
    ["https://api.example/version1", "https://api.example/version1/v1/chat/completions"],
    ["https://api.example/vault", "https://api.example/vault/v1/chat/completions"],
    ["https://v1.example", "https://v1.example/v1/chat/completions"],
    ["https://api.example/a/../v1", "https://api.example/v1/chat/completions"],
    ["HTTP://API.example:80/x%20y", "http://api.example/x%20y/v1/chat/completions"],
    ["http://[::1]:8080", "http://[::1]:8080/v1/chat/completions"],
  ] as const) {
    expect([base, `${apiRootOf(base)}/chat/completions`]).toEqual([base, url]);
  }
});

test("one origin has one form", () => {
  for (const [base, origin] of [
    ["https://API.Example/v1", "https://api.example"],
    ["https://api.example:443", "https://api.example"],
    ["https://api.example:8443/v1", "https://api.example:8443"],
    ["http://api.example:80", "http://api.example"],
    ["http://127.1", "http://127.0.0.1"],
    ["http://2130706433", "http://127.0.0.1"],
    ["http://0x7f.1", "http://127.0.0.1"],
    ["http://[0:0:0:0:0:0:0:1]", "http://[::1]"],
  ] as const) {
    expect([base, originOf(base)]).toEqual([base, origin]);
  }
});
