// The path as it is routed, and which URLs are none.

import { expect, test } from "bun:test";
import { createHostCheck, requestPath } from "../../src/http/request-path.ts";

test("the path is what stands between host and query, still encoded", () => {
  for (const [url, path] of [
    ["http://h/b/k", "/b/k"],
    ["http://h:8080/b/k?x=/y", "/b/k"],
    ["http://h", "/"],
    ["http://h/", "/"],
    ["http://h/?x", "/"],
    ["http://h//b", "//b"],
    ["http://h/%5flist?a", "/%5flist"],
    ["http://h/b/a://c", "/b/a://c"],
    ["http://h/b/k#x", "/b/k#x"],
    ["http://h/b/k#x?y", "/b/k#x"],
    ["http://[::1]:80/b/k", "/b/k"],
    ["https://h/b%2Fk", "/b%2Fk"],
    // Without a Host.
    ["/b/k?x=://h/c&token=secret", "/b/k"],
  ] as const) {
    expect([url, requestPath(url)]).toEqual([url, path]);
  }
});

test("a URL without a host, or with one that no URL can hold, is none, whatever was asked before", () => {
  const hasHost = createHostCheck();
  for (const url of ["http://h/b", "http://h:0/b", "http://[::1]/b", "http://a_b/b", "https://h/"]) {
    expect([url, hasHost(url)]).toEqual([url, true]);
    expect([url, hasHost(`${url}?again`)]).toEqual([url, true]);
  }
  for (const url of [
    "/b/k",
    "",
    "*",
    "h:80",
    "other:80",
    "//h/b",
    "http://h:99999/b",
    "http://h:x/b",
    "http://[::1/b",
    "http://1.2.3.4.5/b",
    "http://a b/",
    "http:///",
  ]) {
    hasHost("http://h/b");
    expect([url, hasHost(url)]).toEqual([url, false]);
  }
});
