// What the kernel knows about an address or block: whose it is, and where it is on this node.

/** Flags of an ipcache entry, as in bpf/lib/datapath_structs.h. */
export const ipcacheFlags = {
  /** An address of this node itself. */
  thisNode: 1,
  /** A block from which this node's pods get their addresses. */
  localBlock: 2,
  /** Of this node: what comes for it belongs to connections that the node translates. */
  nat: 4,
} as const;

/** The primary key is `address`: canonical text, with a prefix length for blocks and without for exact addresses. */
export interface IpcacheRow {
  readonly address: string;
  readonly class: number;
  readonly identity: number;
  readonly ifindex: number;
  readonly endpointId: number;
  readonly flags: number;
}
