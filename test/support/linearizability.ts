// Decides whether what clients saw of a key can be explained by one order of atomic operations.

/** A value by the number of the write that stored it; 0 = the key is missing. */
export type Value = number;
export const MISSING: Value = 0;

export type Action =
  | { readonly kind: "get" }
  | { readonly kind: "put"; readonly value: Value }
  | { readonly kind: "remove" }
  /** Stores only when the key is missing. */
  | { readonly kind: "create"; readonly value: Value }
  /** Stores only when the key holds `expected`. */
  | { readonly kind: "swap"; readonly expected: Value; readonly value: Value };

/**
 * What the client was told: the value that a get has found, whether a condition held, "done" for the others. "unknown":
 * no answer, or one that leaves it open; the operation may have happened until it ended. "refused": surely not.
 */
export type Result = Value | boolean | "done" | "unknown" | "refused";

export interface Operation {
  readonly action: Action;
  /** Set when the operation ends. */
  result: Result;
}

/** The begin and the end of the operations on one key, in the order in which the clients saw them. */
export type History = { readonly kind: "begin" | "end"; readonly operation: Operation }[];

/** A possible present: the value, and which of the open operations have happened already. */
interface Configuration {
  readonly value: Value;
  readonly happened: ReadonlySet<Operation>;
}

/**
 * Wing and Gong, "Testing and Verifying Concurrent Objects" (1993), in the just-in-time form of Lowe, "Testing for
 * linearizability" (2017): an operation is put into the order when one that ends needs it. One checker per key; it may
 * be given a history in parts, as long as nothing is open between them.
 */
export class KeyChecker {
  #values: ReadonlySet<Value> = new Set([MISSING]);

  /** Null, or the index of the first event that no order explains; the checker is of no use after that. */
  check(history: History): number | null {
    const numbers = new Map<Operation, number>();
    const open = new Set<Operation>();
    let configurations: Configuration[] = [...this.#values].map((value) => ({ value, happened: new Set() }));
    for (const [index, { kind, operation }] of history.entries()) {
      if (operation.result === "refused") continue;
      if (kind === "begin") {
        numbers.set(operation, numbers.size);
        open.add(operation);
        continue;
      }
      const reached = reach(configurations, open, operation, numbers);
      open.delete(operation);
      if (reached.length === 0) return index;
      configurations = withoutEnded(reached, operation, numbers);
    }
    if (open.size > 0) throw new Error("an operation has no end");
    this.#values = new Set(configurations.map(({ value }) => value));
    return null;
  }
}

/** All presents in which `ending` has happened; if nobody knows whether it has, those in which it has not as well. */
function reach(
  configurations: readonly Configuration[],
  open: ReadonlySet<Operation>,
  ending: Operation,
  numbers: ReadonlyMap<Operation, number>,
): Configuration[] {
  const seen = new Set<string>();
  const reached: Configuration[] = [];
  const rest = [...configurations];
  for (let at = rest.pop(); at !== undefined; at = rest.pop()) {
    const name = nameOf(at, numbers);
    if (seen.has(name)) continue;
    seen.add(name);
    const hasHappened = at.happened.has(ending);
    if (hasHappened || ending.result === "unknown") reached.push(at);
    if (hasHappened) continue;
    for (const operation of open) {
      if (at.happened.has(operation)) continue;
      const value = valueAfter(at.value, operation);
      if (value !== null) rest.push({ value, happened: new Set(at.happened).add(operation) });
    }
  }
  return reached;
}

function withoutEnded(
  configurations: readonly Configuration[],
  ended: Operation,
  numbers: ReadonlyMap<Operation, number>,
): Configuration[] {
  const distinct = new Map<string, Configuration>();
  for (const { value, happened } of configurations) {
    const left = new Set(happened);
    left.delete(ended);
    const configuration = { value, happened: left };
    distinct.set(nameOf(configuration, numbers), configuration);
  }
  return [...distinct.values()];
}

function nameOf({ value, happened }: Configuration, numbers: ReadonlyMap<Operation, number>): string {
  return `${value}:${[...happened].map((operation) => numbers.get(operation)!).sort((a, b) => a - b)}`;
}

/** The value after an operation that happens now, or null when its client would have been told something else. */
function valueAfter(value: Value, { action, result }: Operation): Value | null {
  const isUnknown = result === "unknown";
  switch (action.kind) {
    case "get":
      return isUnknown || result === value ? value : null;
    case "put":
      return action.value;
    case "remove":
      return MISSING;
    default: {
      const holds = value === (action.kind === "create" ? MISSING : action.expected);
      if (!isUnknown && result !== holds) return null;
      return holds ? action.value : value;
    }
  }
}
