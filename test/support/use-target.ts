// A target that lives as long as the describe block around it.

import { afterAll, beforeAll } from "bun:test";
import type { Environment } from "./executable.ts";
import type { OpenTarget, Target } from "./targets.ts";

/** To be called inside describe(); the function it returns works inside the tests. */
export function useTarget(open: OpenTarget, env: Environment = {}): () => Target {
  let target: Target | null = null;
  beforeAll(async () => {
    target = await open(env);
  });
  afterAll(() => target?.[Symbol.asyncDispose]());
  return () => {
    if (target === null) throw new Error("the target did not start");
    return target;
  };
}
