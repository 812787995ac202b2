// A flow as the ring keeps it: what the datapath said, with both ends named. Protobuf is built from it for readers only.
import type { CookieRow } from '../../core/rows.ts';
import type { ProcessRow } from '../processes/process-row.ts';

/** The rules behind a verdict, with the revisions that their policies ("namespace/name") had when the event was read. */
export interface FlowRules extends CookieRow {
  readonly revisions?: ReadonlyMap<string, number>;
}

/** Who is at one end of a flow, as it was when the event was read. Shared by all flows of this end. */
export interface FlowEnd {
  readonly address: string;
  readonly identity: number;
  readonly labels: readonly string[];
  /** The local endpoint; 0 for everything that is not a pod of this node. */
  readonly endpointId: number;
  /** The host side of the pod's veth; 0 for the node's own addresses, -1 for whoever is not on this node. */
  readonly ifindex: number;
  readonly namespace: string;
  readonly pod: string;
  readonly workloadKind: string;
  readonly workloadName: string;
}

/** A Kubernetes Service whose frontend a connection was made to. Shared by all its flows. */
export interface FlowService {
  readonly namespace: string;
  readonly name: string;
}

/** What a socket of this node knew of its connection when it closed. Times are microseconds; 0: not measured. */
export interface FlowTcp {
  /** From the SYN to the established connection. */
  readonly handshakeUs: number;
  readonly rttUs: number;
  readonly minRttUs: number;
  readonly retransmits: number;
}

/** A message of DNS as it was seen on the wire. */
export interface FlowDns {
  readonly response: boolean;
  /** The name asked for, lower case, with the final dot. */
  readonly query: string;
  /** Names of types, such as AAAA. */
  readonly types: readonly string[];
  /** Of a response: its code, its addresses, and the other types and names on the way to them. */
  readonly rcode: number;
  readonly addresses: readonly string[];
  readonly cnames: readonly string[];
  readonly recordTypes: readonly string[];
  /** Seconds: the least of the answers'. */
  readonly ttl: number;
  /** From the query to this response; 0 where the query was not seen. */
  readonly latencyNs: number;
}

/** Seen from the pod at which the flow was observed, or whose policy denied it. Numbers are the contract's. */
export const FlowDirection = { unknown: 0, ingress: 1, egress: 2 } as const;

/** One flow. Ends and ports are those of the flow; pairs count the originator's packets first. */
export interface FlowRow {
  /** Counts the flows of this agent from 0. */
  readonly seq: number;
  readonly seconds: number;
  readonly nanos: number;
  /** EventType of the datapath. */
  readonly type: number;
  readonly direction: number;
  readonly protocol: number;
  readonly ipv6: boolean;
  /** The dropped packet went from the responder to the originator. */
  readonly reply: boolean;
  readonly source: FlowEnd;
  readonly destination: FlowEnd;
  /** The Service through which an end was reached: the responder's, where it is known. */
  readonly sourceService: FlowService | undefined;
  readonly destinationService: FlowService | undefined;
  /** The source address as the packet has it: differs from the source's own when it was forged. */
  readonly sourceAddress: string;
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly tcpFlags: number;
  /** The device of this node by which the packet came in, or the originator's packets do; 0: none is known. */
  readonly ifindex: number;
  readonly icmpType: number;
  readonly icmpCode: number;
  /** DropReason of a drop, EndCause of an end. */
  readonly reason: number;
  /** EventFlags of the datapath. */
  readonly flags: number;
  readonly bytes: readonly [number, number];
  readonly packets: readonly [number, number];
  /** From the connection's first packet to this report. */
  readonly durationNs: number;
  /** Drops like this that were counted, but not reported, before it. */
  readonly suppressed: number;
  /** The rules behind the verdict: of the originator's egress, of the responder's ingress. */
  readonly egressRules: FlowRules | undefined;
  readonly ingressRules: FlowRules | undefined;
  /** Whose socket is at which end, of what runs on this node. */
  readonly sourceProcess: ProcessRow | undefined;
  readonly destinationProcess: ProcessRow | undefined;
  /** Names that the pod at the other end asked for and was given this address. */
  readonly sourceNames: readonly string[];
  readonly destinationNames: readonly string[];
  /** Of an end: who said FIN or reset first, 1 for the originator, 2 for the responder; 0: nobody, or not known. */
  readonly closedBy: number;
  /** Of an end. */
  readonly tcp: FlowTcp | undefined;
  /** Of a message of DNS. */
  readonly dns: FlowDns | undefined;
}
