// A pod as the API server describes it, reduced to what Weir needs.
import type { LabelMap } from '../labels.ts';
import type { NamedPort } from './named-port.ts';

/** What made a pod, such as Deployment web. */
export interface Workload {
  readonly kind: string;
  readonly name: string;
}

/** The primary key is `key`, "namespace/name". */
export interface PodRow {
  readonly key: string;
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly labels: LabelMap;
  readonly serviceAccount: string;
  readonly namedPorts: readonly NamedPort[];
  readonly addresses: readonly string[];
  /** The pod itself when nothing made it. */
  readonly workload: Workload;
}
