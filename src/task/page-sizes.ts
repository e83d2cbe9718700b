// How long pages of the task service are, where they are not as long as all others.

export const PAGE_DEFAULT = 200;
export const DELIVERIES_MAX = 200;
export const DELIVERIES_DEFAULT = 50;
