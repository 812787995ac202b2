/** By what rows of `weir top` may be sorted: the most first. */
export const sortings = ['bytes', 'packets', 'connections', 'drops', 'rtt'] as const;

/** One of them. */
export type Sorting = (typeof sortings)[number];

/** What rows may stand for. */
export const groupings = ['pod', 'workload', 'namespace', 'port', 'process', 'node'] as const;

/** One of them. */
export type Grouping = (typeof groupings)[number];
