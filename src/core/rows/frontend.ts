// An address and port where a Service is to be had, and who serves it, as the datapath is to know it.
import type { PortProtocol } from './named-port.ts';
import type { LbAlgorithm } from './service.ts';

/** What kind of address a frontend is. */
export type FrontendKind = 'ClusterIP' | 'NodePort' | 'LoadBalancer' | 'ExternalIP' | 'HostPort';

/** Who asks: sockets and pods of the cluster, or packets that come in on a device. */
export type FrontendScope = 'inside' | 'outside';

/** How far a backend takes part. `serving`: gets new connections. All others keep those they have: `draining` is about to
 * go, `unready` says so itself, `standby` is ready but others are nearer, `maintenance` was taken out by hand. */
export type BackendState = 'serving' | 'draining' | 'unready' | 'standby' | 'maintenance';

/** What a backend is to a frontend. Backends that are the same share the object. */
export interface BackendRole {
  readonly state: BackendState;
  /** `pod` of this node, `node`: this node itself, `remote`: elsewhere. */
  readonly where: 'pod' | 'node' | 'remote';
  readonly nodeName?: string;
  readonly weight: number;
}

/** One backend of a frontend. */
export interface FrontendBackend {
  readonly address: string;
  readonly port: number;
  readonly role: BackendRole;
}

/** The primary key is `key`. */
export interface FrontendRow {
  /** "scope address port/protocol" */
  readonly key: string;
  /** The unspecified address of a family for "every address of a node". */
  readonly address: string;
  readonly port: number;
  readonly protocol: PortProtocol;
  readonly scope: FrontendScope;
  readonly kind: FrontendKind;
  /** "namespace/name"; of a host port, the pod's. */
  readonly service: string;
  readonly portName: string;
  readonly algorithm: LbAlgorithm;
  readonly affinitySeconds: number;
  /** The traffic policy is Local. Seen from outside (and from inside, for the internal policy) only backends of this node
   * are here; a node port seen from inside is not served on behalf of other nodes. */
  readonly onlyLocal: boolean;
  /** With the external traffic policy Local, seen from outside: who serves here is about to go, and other nodes have ready
   * ones. Whoever can choose the node asks those. */
  readonly handsOver?: boolean;
  /** Remote backends answer their clients themselves. */
  readonly directReturn: boolean;
  /** Blocks of this family; undefined: everybody. */
  readonly sourceRanges?: readonly string[];
  /** Sorted by address and port: every node sees the same order. */
  readonly backends: readonly FrontendBackend[];
}
