// Policies of every kind after parsing: one shape for all of them, so that what they mean together is decided in one
// place. Defaults are filled in, blocks canonical, selectors written against the labels of identities.
import type { LabelSelector } from '../labels.ts';
import type { PortProtocol } from './named-port.ts';

/** Seen from the endpoint that the policy selects. */
export type Direction = 'ingress' | 'egress';

/** The kinds of policies that Weir reads. */
export type PolicyKind =
  | 'NetworkPolicy'
  | 'CiliumNetworkPolicy'
  | 'CiliumClusterwideNetworkPolicy'
  | 'ClusterNetworkPolicy'
  /** What Weir itself holds open, see the tier `essential`. */
  | 'Builtin';

/** What a rule does with what it matches. Only rules of the tiers admin and baseline pass: they leave it to what follows. */
export type PolicyAction = 'allow' | 'deny' | 'pass';

/**
 * Who is asked first: admin, then normal (where alone policies isolate), then baseline. Before the default deny of an
 * isolated node, `essential` is asked: what it cannot do without.
 */
export type PolicyTier = 'admin' | 'normal' | 'essential' | 'baseline';

/** Which addresses of a block count: all, all but pods, or only what is outside of the cluster. */
export type BlockReach = 'any' | 'not-pods' | 'outside';

/**
 * Who is at the other end. `endpoints`: identities by label (see `endpointLabel` for the keys). `reserved`: identities
 * by number. `block`: addresses.
 */
export type PolicyPeer =
  | { readonly kind: 'endpoints'; readonly selector: LabelSelector }
  | { readonly kind: 'reserved'; readonly identities: readonly number[] }
  | { readonly kind: 'block'; readonly cidr: string; readonly except: readonly string[]; readonly reach: BlockReach };

/** What a policy names and somebody else defines: it stands for peers that come and go. */
export type PeerReference =
  | { readonly kind: 'cidr-group'; readonly name: string; readonly except: readonly string[] }
  | { readonly kind: 'cidr-groups'; readonly selector: LabelSelector; readonly except: readonly string[] }
  | { readonly kind: 'nodes'; readonly selector: LabelSelector }
  | { readonly kind: 'service'; readonly namespace: string | undefined; readonly name: string }
  | { readonly kind: 'services'; readonly namespace: string | undefined; readonly selector: LabelSelector };

/** A peer as written. */
export type WrittenPeer = PolicyPeer | PeerReference;

/**
 * All of an IP protocol, a number or range with both ends (of ICMP: its type), or a name that the destination pod
 * resolves. `protocol` is the number in the IP header.
 */
export type PolicyPort =
  | { readonly kind: 'all'; readonly protocol: number }
  | { readonly kind: 'range'; readonly protocol: number; readonly first: number; readonly last: number }
  | { readonly kind: 'named'; readonly protocol: PortProtocol; readonly name: string };

/** The lists in which rules stand. */
export type RuleList = 'ingress' | 'ingressDeny' | 'egress' | 'egressDeny';

/** One rule. */
export interface PolicyRule<P = PolicyPeer> {
  /** Its place in its list, from 0. */
  readonly index: number;
  readonly list: RuleList;
  readonly action: PolicyAction;
  /** Absent: any peer. Empty: none. */
  readonly peers?: readonly P[];
  /** Absent: anything, ICMP included. Empty: nothing. */
  readonly ports?: readonly PolicyPort[];
  /** Of a rule for any peer: it is not about the pod's own node. Only closed policies have it: probes of the kubelet go on. */
  readonly sparesOwnNode?: OwnNodeSpared;
}

/** Always, or unless the API server answers at that node. */
export type OwnNodeSpared = 'always' | 'unless-api-server';

/** Whether a rule leaves the pod's own node out. */
export function sparesOwnNode(
  { sparesOwnNode: spared }: { readonly sparesOwnNode?: OwnNodeSpared | undefined },
  node: { readonly apiServer?: boolean | undefined },
): boolean {
  return spared === 'always' || (spared === 'unless-api-server' && node.apiServer !== true);
}

/** Whom a policy selects: pods by label, or this node itself. */
export type PolicySubject =
  | { readonly kind: 'endpoints'; readonly selector: LabelSelector }
  | { readonly kind: 'node' };

/** A policy, or one of the `specs` of one, as the compiler takes it. The primary key is `key`. */
export interface PolicyRow<P = PolicyPeer> {
  /** `policyKey` of the object, with `#1` and so on for the second and later specs. */
  readonly key: string;
  readonly kind: PolicyKind;
  /** Empty for what is not in a namespace. */
  readonly namespace: string;
  readonly name: string;
  readonly uid?: string;
  /** Which of the object's specs; absent where there is one. */
  readonly spec?: number;
  readonly tier: PolicyTier;
  /** Inside the tiers admin and baseline; the lower goes first. 0 in the tier normal. */
  readonly priority: number;
  /** Computed and reported, not enforced. */
  readonly staged: boolean;
  readonly subject: PolicySubject;
  /** The directions in which whom it selects is isolated. */
  readonly isolates: Readonly<Record<Direction, boolean>>;
  readonly ingress: readonly PolicyRule<P>[];
  readonly egress: readonly PolicyRule<P>[];
  /** What flows carry when this policy decides. */
  readonly log?: string;
  /** Why a policy that is understood is closed all the same: it is over a limit with what it refers to. */
  readonly error?: string;
  /** As of the object, with what it refers to. */
  readonly remarks?: readonly string[];
}

/** `enforced` and `staged` are said by the object itself; `default` leaves it to its namespace and the cluster. */
export type PolicyEnforcement = 'enforced' | 'staged' | 'default';

/** A policy object as the API has it. The primary key is `key`. */
export interface PolicyObjectRow {
  readonly key: string;
  readonly kind: PolicyKind;
  readonly namespace: string;
  readonly name: string;
  readonly uid?: string;
  readonly generation?: number;
  /** When it was made, as the API says it. */
  readonly created?: string;
  readonly enforcement: PolicyEnforcement;
  /** Its specs. `staged` is still to be decided; subjects that are nodes are told by `nodeSelector`. */
  readonly specs: readonly WrittenPolicy[];
  /** What is wrong, in one line. Such a policy isolates whom it selects and allows nothing. */
  readonly error?: string;
  /** The places of rules that use what is not enforced yet. Such a rule allows and denies nothing. */
  readonly unenforced: readonly string[];
  /** What is understood, and does less or more than it seems to: each begins with its place. */
  readonly remarks?: readonly string[];
}

/** One spec of a policy object. */
export type WrittenPolicy = Omit<PolicyRow<WrittenPeer>, 'staged'> & {
  /** Of a policy for nodes: which. */
  readonly nodeSelector?: LabelSelector;
};

/** The key of a policy object. */
export function policyKey(kind: string, namespace: string, name: string): string {
  return namespace === '' ? `${kind}/${name}` : `${kind}/${namespace}/${name}`;
}
