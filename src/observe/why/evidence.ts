// What there is to know about a connection that does not work, gathered from all nodes.

/** An end as it was asked about. */
export interface WhyEnd {
  /** As it was written. */
  readonly text: string;
  readonly kind: 'pod' | 'service' | 'name' | 'address' | 'unknown';
  readonly namespace?: string;
  readonly name?: string;
  readonly addresses: readonly string[];
  /** Of a pod: where it runs and how far its network is. */
  readonly node?: string;
  readonly state?: string;
  /** Of a service: how many backends it has, and how many of them serve. */
  readonly backends?: number;
  readonly serving?: number;
  readonly problems?: readonly string[];
}

/** One flow, reduced to what matters here. */
export interface WhyFlow {
  readonly timeMs: number;
  readonly node: string;
  readonly kind: 'begun' | 'goes on' | 'ended' | 'dropped' | 'question' | 'answer' | 'icmp error';
  /** `namespace/pod`, a name that it was asked for by, or the address. */
  readonly source: string;
  readonly destination: string;
  readonly sourceAddress: string;
  readonly destinationAddress: string;
  readonly port: number;
  readonly protocol: string;
  readonly direction: 'egress' | 'ingress' | 'unknown';
  /** Of what was dropped. */
  readonly reason?: string;
  /** The policies that denied, `Kind namespace/name`, or those that isolate. */
  readonly policies: readonly string[];
  readonly service?: string;
  /** Of what ended: closed, reset, refused, no answer, expired; and by whom. */
  readonly endCause?: string;
  readonly closedBy?: string;
  readonly sent?: number;
  readonly received?: number;
  readonly rttUs?: number;
  readonly retransmits?: number;
  readonly process?: string;
  /** Of a message of DNS. */
  readonly query?: string;
  readonly rcode?: string;
  readonly answers?: number;
  /** Of an ICMP error. */
  readonly icmp?: string;
  readonly summary: string;
}

/** A connection that a node tracks now. */
export interface WhyConnection {
  readonly node: string;
  readonly state: string;
  readonly verdict: string;
  readonly packets: readonly [number, number];
  readonly idleSeconds: number;
  readonly destinationPort: number;
}

/** What policy says of the two ends, whether they tried or not. */
export interface WhyPolicy {
  readonly allowed: boolean;
  readonly text: readonly string[];
  readonly change?: string;
}

/** Everything. */
export interface WhyEvidence {
  readonly nowMs: number;
  /** So far back flows were looked for. */
  readonly sinceMs: number;
  readonly from: WhyEnd;
  /** Undefined: whatever the pod tried. */
  readonly to?: WhyEnd;
  readonly port?: number;
  readonly flows: readonly WhyFlow[];
  readonly connections: readonly WhyConnection[];
  readonly policy?: WhyPolicy;
  readonly nodes: readonly {
    readonly node: string;
    readonly reachable: boolean;
    readonly problems: readonly string[];
  }[];
}

/** Which layer broke. */
export type WhyLayer =
  | 'source'
  | 'name'
  | 'policy'
  | 'route'
  | 'service'
  | 'answer'
  | 'application'
  | 'packet size'
  | 'node'
  | 'nothing tried'
  | 'works';

/** The answer. */
export interface WhyAnswer {
  readonly layer: WhyLayer;
  /** A word for programs, such as `name-not-found`. */
  readonly cause: string;
  readonly says: string;
  readonly do: string;
  /** The flows and facts that show it, a line each. */
  readonly evidence: readonly string[];
}
