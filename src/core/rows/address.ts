// An exact address that belongs to the cluster: of a pod, of a node, of the API server.
import type { NamedPort } from './named-port.ts';
import type { Workload } from './pod.ts';

/** What an address belongs to. `nat`: behind it a node translates for clients outside. */
export type AddressKind = 'pod' | 'host' | 'remote-node' | 'kube-apiserver' | 'nat';

/** One address in canonical text, without prefix length; other texts are left out. The primary key is `address`. */
export interface AddressRow {
  readonly address: string;
  readonly identity: number;
  readonly kind: AddressKind;
  readonly namespace?: string;
  readonly pod?: string;
  readonly node?: string;
  /** Of a pod. */
  readonly workload?: Workload;
  readonly namedPorts: readonly NamedPort[];
  /** The host side of a local pod's veth; 0 for everything else. */
  readonly ifindex: number;
  /** The local endpoint; 0 for everything else. */
  readonly endpointId: number;
  /** Of a `nat` address: it is this node's. */
  readonly here?: boolean;
  /** The API server answers here too, beside whatever else the address belongs to. */
  readonly apiServer?: boolean;
  /** The pod's identity is not known yet: it counts as a pod that no selector selects. */
  readonly pending?: boolean;
}
