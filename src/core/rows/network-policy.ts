// A NetworkPolicy after parsing: defaults filled in, blocks canonical, with what is wrong with it.
import type { LabelSelector } from '../labels.ts';
import type { PortProtocol } from './named-port.ts';

/** Seen from the pod that the policy selects. */
export type Direction = 'ingress' | 'egress';

/** Pods by label, in namespaces by label (without a namespace selector: the policy's own), or a block of addresses. */
export type PolicyPeer =
  | { readonly kind: 'pods'; readonly podSelector: LabelSelector; readonly namespaceSelector?: LabelSelector }
  | { readonly kind: 'block'; readonly cidr: string; readonly except: readonly string[] };

/** All ports of a protocol, a number, a range with both ends, or a name that the destination pod resolves. */
export type PolicyPort =
  | { readonly kind: 'all'; readonly protocol: PortProtocol }
  | { readonly kind: 'range'; readonly protocol: PortProtocol; readonly first: number; readonly last: number }
  | { readonly kind: 'named'; readonly protocol: PortProtocol; readonly name: string };

/** One entry of spec.ingress or spec.egress. No peers: any peer. No ports: anything, ICMP included. */
export interface PolicyRule {
  readonly peers: readonly PolicyPeer[];
  readonly ports: readonly PolicyPort[];
}

/** The primary key is `key`, "namespace/name". */
export interface NetworkPolicyRow {
  readonly key: string;
  readonly namespace: string;
  readonly name: string;
  readonly uid?: string;
  /** Reported but not enforced: annotation `weir.dev/enforcement: staged`. */
  readonly staged: boolean;
  readonly podSelector: LabelSelector;
  /** The directions in which the selected pods are isolated. */
  readonly isolates: Readonly<Record<Direction, boolean>>;
  readonly ingress: readonly PolicyRule[];
  readonly egress: readonly PolicyRule[];
  /** What is wrong, in one line. Such a policy isolates whom it selects and allows nothing. */
  readonly error?: string;
}
