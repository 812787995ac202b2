// A Kubernetes Service and its EndpointSlices after parsing: defaults filled in, addresses canonical.
import type { PortProtocol } from './named-port.ts';

/** One port of a Service. Where it leads is said by the slices, by the port's name. */
export interface ServicePort {
  /** Empty for the only port of a Service. */
  readonly name: string;
  readonly protocol: PortProtocol;
  readonly port: number;
  readonly nodePort?: number;
}

/** How the backend of a connection is chosen. */
export type LbAlgorithm = 'maglev' | 'random';

/** A Service that has frontends; headless ones and names have none and are left out. The primary key is `key`. */
export interface ServiceRow {
  /** "namespace/name" */
  readonly key: string;
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  /** ISO time; the older Service keeps an address that two claim. */
  readonly createdAt: string;
  readonly type: 'ClusterIP' | 'NodePort' | 'LoadBalancer';
  readonly clusterIps: readonly string[];
  readonly externalIps: readonly string[];
  /** Addresses of the load balancer that packets carry to the node (`ipMode: VIP`). */
  readonly loadBalancerIps: readonly string[];
  readonly ports: readonly ServicePort[];
  /** Session affinity by client address; undefined: none. */
  readonly affinitySeconds?: number;
  readonly internalLocal: boolean;
  readonly externalLocal: boolean;
  readonly healthCheckNodePort?: number;
  /** Who may use the load balancer's addresses; undefined: everybody. */
  readonly sourceRanges?: readonly string[];
  /** From the annotation `weir.dev/lb-algorithm`. */
  readonly algorithm?: LbAlgorithm;
  /** What was ignored, and why. */
  readonly problems: readonly string[];
}

/** What a slice says of an endpoint beside its address. Endpoints of which it says the same share the object. */
export interface EndpointFacts {
  readonly ready: boolean;
  readonly serving: boolean;
  readonly terminating: boolean;
  readonly node?: string;
  readonly forZones?: readonly string[];
  readonly forNodes?: readonly string[];
  /** Of a share of 1 each; from the slice's annotation `weir.dev/weight`. */
  readonly weight: number;
}

/** An EndpointSlice. The primary key is `key`, "namespace/name". */
export interface ServiceSliceRow {
  readonly key: string;
  /** "namespace/name" of its Service. */
  readonly service: string;
  readonly namespace: string;
  readonly ports: readonly { readonly name: string; readonly protocol: PortProtocol; readonly port: number }[];
  /** Of each endpoint the first, as every reader of slices takes it. */
  readonly addresses: readonly string[];
  /** Of the endpoints, in the order of `addresses`. */
  readonly facts: readonly EndpointFacts[];
  readonly problems: readonly string[];
}
