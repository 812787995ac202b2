// A security identity of the cluster and the labels it stands for.

/** A number and its sorted labels, `k8s:key=value` for pods, `reserved:name` for the others. */
export interface IdentityRow {
  readonly id: number;
  readonly labels: readonly string[];
}
