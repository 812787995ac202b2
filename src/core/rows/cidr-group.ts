// A named list of blocks outside of the cluster that policies refer to.
import type { LabelMap } from '../labels.ts';

/** A CiliumCIDRGroup. The primary key is `name`; blocks are in canonical text. */
export interface CidrGroupRow {
  readonly name: string;
  readonly labels: LabelMap;
  readonly cidrs: readonly string[];
  /** What was left out of it, and why. */
  readonly problems: readonly string[];
}
