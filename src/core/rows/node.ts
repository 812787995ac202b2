// A node of the cluster, from its WeirNode object.
import type { LabelMap } from '../labels.ts';

/** The primary key is `name`. */
export interface NodeRow {
  readonly name: string;
  /** Of the Node object: policies select nodes by them. */
  readonly labels?: LabelMap;
  /** The node's own addresses, the preferred one of each family first. */
  readonly addresses: readonly string[];
  /** The blocks its pods get addresses from. */
  readonly podCidrs: readonly string[];
  /** The pools that all nodes' blocks come from. */
  readonly clusterPools: readonly string[];
}
