// A Kubernetes namespace. Its labels are not part of identities: policies look them up here, so that they may change.
import type { LabelMap } from '../labels.ts';

/** A namespace and its labels. */
export interface NamespaceRow {
  readonly name: string;
  readonly labels: LabelMap;
}
