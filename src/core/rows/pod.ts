// A pod as the API server describes it, reduced to what Weir needs.
import type { LabelMap } from '../labels.ts';
import type { NamedPort, PortProtocol } from './named-port.ts';

/** What made a pod, such as Deployment web. */
export interface Workload {
  readonly kind: string;
  readonly name: string;
}

/** A port of the node that leads to the pod. */
export interface HostPort {
  readonly hostPort: number;
  readonly containerPort: number;
  readonly protocol: PortProtocol;
  /** On this address of the node only. */
  readonly hostIp?: string;
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
  readonly hostPorts?: readonly HostPort[];
  readonly addresses: readonly string[];
  /** The pod itself when nothing made it. */
  readonly workload: Workload;
}
