// A Kubernetes namespace. Its labels are not part of identities: policies look them up here, so that they may change.
import type { LabelMap } from '../labels.ts';

/** A namespace, its labels, and whether its policies are staged unless they say otherwise. */
export interface NamespaceRow {
  readonly name: string;
  readonly labels: LabelMap;
  /** By the annotation `weir.dev/enforcement`; undefined leaves it to the cluster. */
  readonly staged?: boolean;
}
