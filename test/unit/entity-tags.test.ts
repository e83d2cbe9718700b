// Whether a client has the current answer already, by what it says in If-None-Match.

import { expect, test } from "bun:test";
import { isUnchanged } from "../../src/http/entity-tags.ts";

test("an answer is unchanged for whoever names its tag, weak or strong, alone or among others", () => {
  for (const header of ['"v3"', 'W/"v3"', '"v2", W/"v3"', '"a,b" , "v3"', ',"v3",,', "*", " * "]) {
    expect([header, isUnchanged(header, '"v3"'), isUnchanged(header, 'W/"v3"')]).toEqual([header, true, true]);
  }
  const many = Array.from({ length: 100 }, (_, index) => `"v${index}"`).join(",");
  expect([isUnchanged(many, '"v99"'), isUnchanged(many, '"v100"')]).toEqual([true, false]);
});

test("it has changed for whoever names another tag, none, or what is no list of tags", () => {
  for (const header of [null, "", '"v2"', '"v33"', "v3", 'w/"v3"', '"v3" "v2"', '"v2", v3', '"x", *', 'x"v3"']) {
    expect([header, isUnchanged(header, '"v3"')]).toEqual([header, false]);
  }
});
