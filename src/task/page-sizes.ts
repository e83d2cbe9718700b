// How long pages of the task service may be, where they are not as long as all others.

export const DELIVERIES_MAX = 200;
export const DELIVERIES_DEFAULT = 50;
