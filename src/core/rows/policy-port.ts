// Second step of the compiled policy: inside a ruleset the longest prefix of (protocol, port) decides.

/**
 * An entry of the longest-prefix map. `prefixBits` counts bits of protocol (8) and port (16): 0 matches anything,
 * 8 a protocol, 24 one port. Rows of a ruleset never change: other content is another ruleset.
 */
export interface PolicyPortRow {
  readonly ruleset: number;
  /** IP protocol number; 0 when prefixBits is 0. */
  readonly protocol: number;
  /** Bits beyond the prefix are zero. */
  readonly port: number;
  readonly prefixBits: number;
  readonly allow: boolean;
  /** Where to redirect the connection; 0 for nowhere. */
  readonly proxyPort: number;
  readonly cookie: number;
  /** What the verdict would be if staged policies were enforced. */
  readonly stagedAllow: boolean;
}

/** The primary key of a port row. */
export function policyPortKey(row: Pick<PolicyPortRow, 'ruleset' | 'protocol' | 'port' | 'prefixBits'>): string {
  return `${row.ruleset}/${row.protocol}/${row.port}/${row.prefixBits}`;
}
