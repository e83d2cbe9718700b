// Paths matched segment by segment: a literal segment goes before a `:name`.

/** What a path leads to. */
interface RouteMatch<T> {
  /** As it was listed. */
  readonly pattern: string;
  readonly target: T;
  /** Segments that stand for a name, as they were sent: neither decoded nor judged, but never empty. */
  readonly params: Readonly<Record<string, string>>;
}

interface Branch<T> {
  readonly literals: Map<string, Branch<T>>;
  wild: { readonly name: string; readonly branch: Branch<T> } | null;
  leaf: { readonly pattern: string; readonly target: T } | null;
}

/** Patterns such as `/tasks/:id/comments`; one that is listed twice is a mistake of the program. */
export class RouteTree<T> {
  readonly #root: Branch<T> = emptyBranch();

  constructor(routes: Readonly<Record<string, T>>) {
    for (const [pattern, target] of Object.entries(routes)) this.#add(pattern, target);
  }

  /** Null when nothing is at `path`, which begins with a slash; a trailing slash counts. */
  find(path: string): RouteMatch<T> | null {
    const params: Record<string, string> = {};
    let branch = this.#root;
    for (const segment of path.split("/").slice(1)) {
      const literal = branch.literals.get(segment);
      if (literal !== undefined) {
        branch = literal;
      } else if (branch.wild !== null && segment !== "") {
        params[branch.wild.name] = segment;
        branch = branch.wild.branch;
      } else return null;
    }
    return branch.leaf === null ? null : { ...branch.leaf, params };
  }

  #add(pattern: string, target: T): void {
    let branch = this.#root;
    for (const segment of pattern.split("/").slice(1)) {
      if (segment.startsWith(":")) {
        branch.wild ??= { name: segment.slice(1), branch: emptyBranch() };
        branch = branch.wild.branch;
        continue;
      }
      const next = branch.literals.get(segment) ?? emptyBranch<T>();
      branch.literals.set(segment, next);
      branch = next;
    }
    if (branch.leaf !== null) throw new Error(`two routes are listed as ${pattern}`);
    branch.leaf = { pattern, target };
  }
}

function emptyBranch<T>(): Branch<T> {
  return { literals: new Map(), wild: null, leaf: null };
}
