// Which mount answers a path.

import { describe, expect, test } from "bun:test";
import { MountRouter } from "../../src/http/mount-router.ts";

function routerOf(...paths: string[]): MountRouter<string> {
  const router = new MountRouter<string>();
  for (const path of paths) router.add("ALL", path, path);
  return router;
}

function matched(router: MountRouter<string>, path: string): string | null {
  const [handlers] = router.match("GET", path);
  expect(handlers.length).toBeLessThanOrEqual(1);
  return handlers[0]?.[0] ?? null;
}

describe("a path is answered by", () => {
  const router = routerOf("/", "/livez", "/kv/token/*", "/kv/*", "/_admin/backup", "/_admin/jobs/*", "/v1/*", "/*");

  test.each([
    ["/", "/"],
    ["/livez", "/livez"],
    ["/v1", "/v1/*"],
    ["/v1/", "/v1/*"],
    ["/v1/chat/completions", "/v1/*"],
    ["/_admin/backup", "/_admin/backup"],
    ["/_admin/jobs", "/_admin/jobs/*"],
    ["/_admin/jobs/7", "/_admin/jobs/*"],
  ])("%s: the mount %s", (path, mount) => {
    expect(matched(router, path)).toBe(mount);
  });

  test("the first of two mounts that hold it", () => {
    expect(matched(router, "/kv/token/a")).toBe("/kv/token/*");
    expect(matched(router, "/kv/tokens")).toBe("/kv/*");
    expect(matched(routerOf("/kv/*", "/kv/token/*"), "/kv/token/a")).toBe("/kv/*");
  });

  test("the catch-all when no mount holds it, wherever the catch-all was mounted", () => {
    const paths = ["", "//", "//livez", "/livez/", "/livez/x", "/livezx", "/v1x", "/_admin", "/_admin/jobsx", "/a/v1"];
    for (const path of [...paths, "/__proto__", "/constructor", "/*", "/%6civez"]) {
      expect([path, matched(router, path)]).toEqual([path, "/*"]);
    }
    expect(matched(routerOf("/*", "/livez"), "/livez")).toBe("/livez");
    const two = routerOf("/*");
    two.add("ALL", "/*", "another");
    expect(matched(two, "/b/k")).toBe("/*");
  });

  test("nothing when there is no catch-all either", () => {
    expect(matched(routerOf("/livez"), "/b/k")).toBeNull();
    expect(matched(routerOf(), "/")).toBeNull();
  });

  test("the same for every method", () => {
    for (const method of ["GET", "POST", "OPTIONS", "BREW", "ALL"]) {
      expect(router.match(method, "/v1/models")[0][0]?.[0]).toBe("/v1/*");
    }
  });
});

describe("a mount is refused", () => {
  test("for one method alone", () => {
    expect(() => new MountRouter().add("GET", "/livez", "x")).toThrow("/livez is mounted for GET alone");
  });

  test.each(["/a/:id", "/a/*/b", "/a/:id/*", "/a?", "/a{x}"])("with a pattern: %s", (path) => {
    expect(() => new MountRouter().add("ALL", path, "x")).toThrow("is neither a path nor a path and all below it");
  });
});
