// What NetworkPolicy means, written to be read: one connection against all policies, without any cleverness. The
// compiled policy is tested against this, and `why` questions are answered with it.
import { podOfIdentity, reservedIdentities } from '../../core/identity.ts';
import { cidrContains, type IpAddress, parseAddress, parseCidr } from '../../core/ip.ts';
import { selectorMatches } from '../../core/labels.ts';
import {
  type AddressRow,
  type Direction,
  type IdentityRow,
  type NamedPort,
  type NamespaceRow,
  type NetworkPolicyRow,
  type PolicyPeer,
  type PolicyPort,
  type PrefixRow,
  protocolNumbers,
  type RuleOrigin,
} from '../../core/rows.ts';

/** Everything policies look at. */
export interface PolicyModel {
  readonly identities: readonly IdentityRow[];
  readonly namespaces: readonly NamespaceRow[];
  readonly addresses: readonly AddressRow[];
  readonly prefixes: readonly PrefixRow[];
  readonly policies: readonly NetworkPolicyRow[];
}

/** The first packet of a connection. The port is 0 where the protocol has none. */
export interface Connection {
  readonly source: string;
  readonly destination: string;
  /** IP protocol number. */
  readonly protocol: number;
  readonly port: number;
}

/** The judgement of one end. */
export interface Verdict {
  readonly allowed: boolean;
  /** The rules that allow it; empty when no policy isolates the pod. */
  readonly allowedBy: readonly RuleOrigin[];
  /** The policies that isolate the pod in this direction. */
  readonly isolatedBy: readonly RuleOrigin[];
  /** What the verdict would be if staged policies were enforced. */
  readonly stagedAllowed: boolean;
}

/** One end of a connection as policy sees it. */
interface Party {
  readonly address: IpAddress;
  readonly identity: number;
  /** A pod has policies of its own; with unknown labels it is closed, and no selector finds it. */
  readonly isPod: boolean;
  readonly pod?: { readonly namespace: string; readonly labels: Readonly<Record<string, string>> };
  readonly namedPorts: readonly NamedPort[];
}

const open: Verdict = { allowed: true, allowedBy: [], isolatedBy: [], stagedAllowed: true };
const closed: Verdict = { allowed: false, allowedBy: [], isolatedBy: [], stagedAllowed: false };

/** Judges a connection at both ends: leaving the source, and arriving at the destination. */
export function evaluate(model: PolicyModel, connection: Connection): { egress: Verdict; ingress: Verdict } {
  const source = partyOf(model, connection.source);
  const destination = partyOf(model, connection.destination);
  // A node may always reach its own pods: otherwise probes of the kubelet would depend on policy.
  const fromOwnNode = source.identity === reservedIdentities.host;
  return {
    egress: judge(model, 'egress', source, destination, destination, connection),
    ingress: fromOwnNode ? open : judge(model, 'ingress', destination, source, destination, connection),
  };
}

function judge(
  model: PolicyModel,
  direction: Direction,
  subject: Party,
  peer: Party,
  destination: Party,
  connection: Connection,
): Verdict {
  if (!subject.isPod) return open;
  const pod = subject.pod;
  if (pod === undefined) return closed;
  const isolating = model.policies.filter(
    (policy) =>
      policy.isolates[direction] &&
      policy.namespace === pod.namespace &&
      selectorMatches(policy.podSelector, pod.labels),
  );
  const isolatedBy: RuleOrigin[] = [];
  const allowedBy: RuleOrigin[] = [];
  let stagedIsolated = false;
  let stagedAllowed = false;
  for (const policy of isolating) {
    stagedIsolated = true;
    if (!policy.staged) isolatedBy.push(originOf(policy, direction, -1));
    for (const [ruleIndex, rule] of policy[direction].entries()) {
      const peerMatches =
        rule.peers.length === 0 || rule.peers.some((entry) => matchesPeer(model, policy, entry, peer));
      const portMatches =
        rule.ports.length === 0 || rule.ports.some((entry) => matchesPort(entry, destination, connection));
      if (!peerMatches || !portMatches) continue;
      stagedAllowed = true;
      if (!policy.staged) allowedBy.push(originOf(policy, direction, ruleIndex));
    }
  }
  return {
    allowed: isolatedBy.length === 0 || allowedBy.length > 0,
    allowedBy,
    isolatedBy,
    stagedAllowed: !stagedIsolated || stagedAllowed,
  };
}

function matchesPeer(model: PolicyModel, policy: NetworkPolicyRow, entry: PolicyPeer, peer: Party): boolean {
  if (entry.kind === 'block') {
    const inside = (cidr: string): boolean => {
      const parsed = parseCidr(cidr);
      return parsed.ok && cidrContains(parsed.value, peer.address);
    };
    return inside(entry.cidr) && !entry.except.some(inside);
  }
  const pod = peer.pod;
  if (pod === undefined || !selectorMatches(entry.podSelector, pod.labels)) return false;
  if (entry.namespaceSelector === undefined) return pod.namespace === policy.namespace;
  // The labels of a namespace that is not known yet could be anything: nothing selects it.
  const namespace = model.namespaces.find((row) => row.name === pod.namespace);
  return namespace !== undefined && selectorMatches(entry.namespaceSelector, namespace.labels);
}

function matchesPort(entry: PolicyPort, destination: Party, connection: Connection): boolean {
  if (protocolNumbers[entry.protocol] !== connection.protocol) return false;
  switch (entry.kind) {
    case 'all':
      return true;
    case 'range':
      return connection.port >= entry.first && connection.port <= entry.last;
    case 'named':
      return destination.namedPorts.some(
        ({ name, protocol, port }) => name === entry.name && protocol === entry.protocol && port === connection.port,
      );
  }
}

function originOf(policy: NetworkPolicyRow, direction: Direction, ruleIndex: number): RuleOrigin {
  const { namespace, name, uid } = policy;
  return { kind: 'NetworkPolicy', namespace, name, ...(uid !== undefined && { uid }), direction, ruleIndex };
}

function partyOf(model: PolicyModel, text: string): Party {
  const parsed = parseAddress(text);
  if (!parsed.ok) throw new Error(parsed.reason);
  const address = parsed.value;
  const row = model.addresses.find((candidate) => candidate.address === text);
  if (row !== undefined) {
    const labels = row.pending ? undefined : model.identities.find(({ id }) => id === row.identity)?.labels;
    const pod = labels && podOfIdentity(labels);
    return { address, identity: row.identity, isPod: row.kind === 'pod', pod, namedPorts: row.namedPorts };
  }
  return { address, identity: prefixIdentity(model.prefixes, address), isPod: false, namedPorts: [] };
}

/** The identity of the longest known block around an address; the world's where there is none. */
function prefixIdentity(prefixes: readonly PrefixRow[], address: IpAddress): number {
  let identity: number = reservedIdentities[address.family === 4 ? 'world-ipv4' : 'world-ipv6'];
  let longest = -1;
  for (const row of prefixes) {
    const parsed = parseCidr(row.cidr);
    if (!parsed.ok || !cidrContains(parsed.value, address) || parsed.value.prefixBits <= longest) continue;
    longest = parsed.value.prefixBits;
    identity = row.identity;
  }
  return identity;
}
