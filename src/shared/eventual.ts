// A result that is there at once or comes later: where most come at once, and a promise would cost more than the work.

export type Eventually<T> = T | Promise<T>;
