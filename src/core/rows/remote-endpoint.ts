// A pod of another node, from that node's endpoint slices.
import type { NamedPort } from './named-port.ts';
import type { Workload } from './pod.ts';

/** The primary key is `key`, "node/id". */
export interface RemoteEndpointRow {
  readonly key: string;
  readonly node: string;
  readonly id: number;
  readonly namespace: string;
  readonly pod: string;
  readonly ipv4?: string;
  readonly ipv6?: string;
  readonly identity: number;
  readonly namedPorts: readonly NamedPort[];
  readonly workload?: Workload;
}
