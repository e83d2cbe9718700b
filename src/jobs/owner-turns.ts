// Whose turn it was: of owners with as many jobs running those come first whose turn it has not been.

import type { ClaimedJob, Turns } from "./job-claim-units.ts";

/** Of each priority of a queue; those that had their turn first are forgotten first, and may have another. */
const OWNERS_MAX = 100;

export class OwnerTurns {
  readonly #queues = new Map<string, Map<number, Set<number>>>();

  /** In the order in which jobs are taken. */
  note({ queue, priority, ownerId }: ClaimedJob): void {
    if (ownerId === null) return;
    const owners = this.#ownersOf(queue, priority);
    // Nobody else was waiting: from here on everybody may have a turn again.
    if (owners.has(ownerId)) owners.clear();
    owners.add(ownerId);
    if (owners.size > OWNERS_MAX) owners.delete(owners.values().next().value!);
  }

  of(queue: string): Turns {
    return Object.fromEntries(
      [...(this.#queues.get(queue) ?? [])].map(([priority, owners]) => [priority, [...owners]]),
    );
  }

  #ownersOf(queue: string, priority: number): Set<number> {
    const priorities = this.#queues.get(queue) ?? new Map<number, Set<number>>();
    this.#queues.set(queue, priorities);
    const owners = priorities.get(priority) ?? new Set<number>();
    priorities.set(priority, owners);
    return owners;
  }
}
