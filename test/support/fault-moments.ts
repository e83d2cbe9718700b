// Which of many calls is to fail: near each other first, where every call is another phase of the start; wider later.

/** `count` numbers from 1 to about `last`, rising. */
export function faultMoments(count: number, last: number): number[] {
  const spread = (index: number) => Math.round((last * (index + 1) ** 2) / count ** 2);
  return Array.from({ length: count }, (_, index) => Math.max(index + 1, spread(index)));
}
