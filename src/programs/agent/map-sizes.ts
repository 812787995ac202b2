// How large the maps of policy and addresses are: by the machine's memory, unless the operator of the node says otherwise.
// They take memory only for rows that are there; a limit keeps one cluster's policies from taking the machine's.

/** One row of policy for so many bytes of memory: full maps take a thousandth of it. */
const bytesPerRow = 64 * 1024;
const least = 65_536;
const most = 2_097_152;

/** Rows by map, for a machine with so much memory. Powers of two, so that a few megabytes more or less change nothing. */
export function mapSizes(memoryBytes: number): Record<string, number> {
  const rows = Math.min(most, Math.max(least, 2 ** Math.floor(Math.log2(memoryBytes / bytesPerRow))));
  // Blocks are those of policies and of nodes: what the limits of three namespaces allow fits in the least.
  return { policy_peer: rows, policy_ports: rows, ipcache: rows / 2, ipcache_prefix: Math.max(least, rows / 2) };
}
