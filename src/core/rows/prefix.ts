// A block of addresses with the identity of whatever in it has no row of its own.

/** Such as a node's pod block (unmanaged) or 0.0.0.0/0 (world-ipv4). The primary key is `cidr`, in canonical text. */
export interface PrefixRow {
  readonly cidr: string;
  readonly identity: number;
  /** This node's pods get their addresses from it. */
  readonly local?: boolean;
}
