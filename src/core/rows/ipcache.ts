// What the kernel knows about an address or block: whose it is, and where it is on this node.

/** Flags of an ipcache entry. */
export const ipcacheFlags = {
  /** A pod whose identity has not arrived yet. */
  pending: 1,
  /** An address of this node. */
  host: 2,
  /** An address of another node. */
  remoteNode: 4,
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
