// A pod (or other workload) of this node that Weir connects.
import type { LabelMap } from '../labels.ts';
import type { NamedPort } from './named-port.ts';
import type { Workload } from './pod.ts';

/** How far an endpoint has come. */
export type EndpointState = 'creating' | 'waiting-for-identity' | 'ready' | 'disconnecting';

/** A local endpoint. The primary key is `id`. */
export interface EndpointRow {
  readonly id: number;
  readonly containerId: string;
  readonly namespace: string;
  readonly pod: string;
  readonly podUid?: string;
  readonly serviceAccount?: string;
  /** The interface's name inside the pod. */
  readonly interfaceName: string;
  /** The host side of the veth. */
  readonly ifindex: number;
  readonly ipv4?: string;
  readonly ipv6?: string;
  readonly mac: string;
  /** Reserved `init` until the pod's own is known. */
  readonly identity: number;
  readonly labels: LabelMap;
  readonly namedPorts: readonly NamedPort[];
  /** As long as the API server has not described the pod: nothing. */
  readonly workload?: Workload;
  readonly state: EndpointState;
  /** Path of the pod's network namespace. */
  readonly netns: string;
  readonly createdAtMs: number;
}
