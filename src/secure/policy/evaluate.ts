// What policies mean, written to be read: one connection against all of them, without any cleverness. The compiled
// policy is tested against this, and `why` questions are answered with it.
import {
  isNode,
  isOutside,
  type PodIdentity,
  podOfIdentity,
  reservedIdentities,
  selectsPod,
} from '../../core/identity.ts';
import { cidrContains, type IpAddress, parseAddress, parseCidr } from '../../core/ip.ts';
import type { LabelSelector } from '../../core/labels.ts';
import {
  type AddressRow,
  type Direction,
  type IdentityRow,
  type NamedPort,
  type NamespaceRow,
  type PolicyPeer,
  type PolicyPort,
  type PolicyRow,
  type PolicyRule,
  type PrefixRow,
  protocolNumbers,
  type RuleOrigin,
  sparesOwnNode,
} from '../../core/rows.ts';
import { originOf } from './compiled-rule.ts';

/** Everything policies look at. */
export interface PolicyModel {
  readonly identities: readonly IdentityRow[];
  readonly namespaces: readonly NamespaceRow[];
  readonly addresses: readonly AddressRow[];
  /** Both of 0.0.0.0/0 and ::/0 are always among them. */
  readonly prefixes: readonly PrefixRow[];
  readonly policies: readonly PolicyRow[];
}

/** The first packet of a connection. The port is the type of ICMP, and 0 where the protocol has none. */
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
  /** The rules that allow or deny it; empty when none did, or only a node's right to reach its own pods. */
  readonly decidedBy: readonly RuleOrigin[];
  /** The policies that isolate the endpoint in this direction. */
  readonly isolatedBy: readonly RuleOrigin[];
  /** What the verdict would be if staged policies were enforced. */
  readonly stagedAllowed: boolean;
}

/** One end of a connection as policy sees it. */
export interface Party {
  /** Undefined for somebody known by labels only: no block contains him. */
  readonly address?: IpAddress;
  readonly identity: number;
  /** The API server answers at its address, whatever its identity. */
  readonly apiServer: boolean;
  /** A pod has policies of its own; with unknown labels it is closed, and no selector finds it. */
  readonly isPod: boolean;
  readonly pod?: PodIdentity;
  readonly namedPorts: readonly NamedPort[];
}

const open: Verdict = { allowed: true, decidedBy: [], isolatedBy: [], stagedAllowed: true };
const closed: Verdict = { allowed: false, decidedBy: [], isolatedBy: [], stagedAllowed: false };

/** What is asked for: an IP protocol and a port, or the type of ICMP. */
export type Service = Pick<Connection, 'protocol' | 'port'>;

/** Judges a connection at both ends: leaving the source, and arriving at the destination. */
export function evaluate(model: PolicyModel, connection: Connection): { egress: Verdict; ingress: Verdict } {
  const source = partyOf(model, connection.source);
  return evaluateParties(model, source, partyOf(model, connection.destination), connection);
}

/** The same between ends that need not have an address. */
export function evaluateParties(
  model: PolicyModel,
  source: Party,
  destination: Party,
  service: Service,
): { egress: Verdict; ingress: Verdict } {
  return {
    egress: judge(model, 'egress', source, destination, service),
    ingress: judge(model, 'ingress', destination, source, service),
  };
}

/** A rule that matches, with its policy. */
interface Match {
  readonly policy: PolicyRow;
  readonly rule: PolicyRule;
}

function judge(model: PolicyModel, direction: Direction, subject: Party, peer: Party, service: Service): Verdict {
  const isNodeItself = subject.identity === reservedIdentities.host;
  if (!subject.isPod && !isNodeItself) return open;
  // A node may reach its own pods unless a rule denies it: otherwise probes of the kubelet would depend on policy.
  const fromOwnNode = direction === 'ingress' && peer.identity === reservedIdentities.host;
  if (subject.isPod && subject.pod === undefined) return fromOwnNode ? open : closed;

  const policies = model.policies.filter((policy) => selectsSubject(model, policy, subject));
  const destination = direction === 'ingress' ? subject : peer;
  const matches = policies.flatMap((policy) =>
    policy[direction]
      .filter(
        (rule) =>
          !(fromOwnNode && sparesOwnNode(rule, peer)) &&
          matchesPeers(model, rule, peer) &&
          matchesPorts(rule, destination, service),
      )
      .map((rule): Match => ({ policy, rule })),
  );
  const isolating = policies.filter((policy) => policy.isolates[direction]);
  const enforced = verdictOf(
    matches.filter(({ policy }) => !policy.staged),
    isolating.some((policy) => !policy.staged),
    fromOwnNode,
  );
  const staged = verdictOf(matches, isolating.length > 0, fromOwnNode);
  return {
    allowed: enforced.allowed,
    decidedBy: enforced.by.map(({ policy, rule }) => originOf(policy, direction, rule)),
    isolatedBy: isolating.filter((policy) => !policy.staged).map((policy) => originOf(policy, direction)),
    stagedAllowed: staged.allowed,
  };
}

/** Precedence, word for word as docs/policy.md has it. */
function verdictOf(
  matches: readonly Match[],
  isolated: boolean,
  fromOwnNode: boolean,
): { allowed: boolean; by: readonly Match[] } {
  const inOrder = (tier: string): Match[] =>
    matches.filter(({ policy }) => policy.tier === tier).sort((a, b) => (comesFirst(a, b) ? -1 : 1));
  const [admin] = inOrder('admin');
  if (admin?.rule.action === 'allow') return { allowed: true, by: [admin] };
  if (admin?.rule.action === 'deny') return { allowed: false, by: [admin] };

  const normal = matches.filter(({ policy }) => policy.tier === 'normal');
  const denying = normal.filter(({ rule }) => rule.action === 'deny');
  if (denying.length > 0) return { allowed: false, by: denying };
  const allowing = normal.filter(({ rule }) => rule.action === 'allow');
  if (allowing.length > 0 || fromOwnNode) return { allowed: true, by: allowing };
  if (isolated) {
    const essential = inOrder('essential');
    return { allowed: essential.length > 0, by: essential };
  }

  const [baseline] = inOrder('baseline');
  if (baseline?.rule.action === 'allow') return { allowed: true, by: [baseline] };
  if (baseline?.rule.action === 'deny') return { allowed: false, by: [baseline] };
  return { allowed: true, by: [] };
}

function comesFirst(a: Match, b: Match): boolean {
  if (a.policy.priority !== b.policy.priority) return a.policy.priority < b.policy.priority;
  if (a.policy.key !== b.policy.key) return a.policy.key < b.policy.key;
  return a.rule.index < b.rule.index;
}

/** Whether a policy is about an end of a connection. */
export function selectsSubject(model: PolicyModel, policy: PolicyRow, subject: Party): boolean {
  if (policy.subject.kind === 'node') return subject.identity === reservedIdentities.host;
  if (subject.pod === undefined) return false;
  if (policy.namespace !== '' && policy.namespace !== subject.pod.namespace) return false;
  return selects(model, policy.subject.selector, subject.pod);
}

function selects(model: PolicyModel, selector: LabelSelector, pod: PodIdentity): boolean {
  return selectsPod(selector, pod, model.namespaces.find((row) => row.name === pod.namespace)?.labels);
}

/** Whether a rule is about a peer; one without `peers` is about every peer. */
export function matchesPeers(model: PolicyModel, rule: PolicyRule, peer: Party): boolean {
  return rule.peers === undefined || rule.peers.some((entry) => matchesPeer(model, entry, peer));
}

function matchesPeer(model: PolicyModel, entry: PolicyPeer, peer: Party): boolean {
  switch (entry.kind) {
    case 'endpoints':
      return peer.pod !== undefined && selects(model, entry.selector, peer.pod);
    case 'reserved':
      return (
        entry.identities.includes(peer.identity) ||
        (peer.apiServer && entry.identities.includes(reservedIdentities['kube-apiserver']))
      );
    case 'block': {
      const inside = (cidr: string): boolean => {
        const parsed = parseCidr(cidr);
        return parsed.ok && peer.address !== undefined && cidrContains(parsed.value, peer.address);
      };
      if (entry.reach === 'outside' && !isOutside(peer.identity)) return false;
      if (entry.reach === 'not-pods' && !isOutside(peer.identity) && !isNode(peer.identity)) return false;
      return inside(entry.cidr) && !entry.except.some(inside);
    }
  }
}

/** Whether a rule is about a connection's protocol and port; one without `ports` is about all. */
export function matchesPorts(rule: PolicyRule, destination: Party, service: Service): boolean {
  return rule.ports === undefined || rule.ports.some((entry) => matchesPort(entry, destination, service));
}

function matchesPort(entry: PolicyPort, destination: Party, service: Service): boolean {
  switch (entry.kind) {
    case 'all':
      return entry.protocol === service.protocol;
    case 'range':
      return entry.protocol === service.protocol && service.port >= entry.first && service.port <= entry.last;
    case 'named':
      return (
        protocolNumbers[entry.protocol] === service.protocol &&
        destination.namedPorts.some(
          ({ name, protocol, port }) => name === entry.name && protocol === entry.protocol && port === service.port,
        )
      );
  }
}

/** An end of a connection by its address. */
export function partyOf(model: PolicyModel, text: string): Party {
  const parsed = parseAddress(text);
  if (!parsed.ok) throw new Error(parsed.reason);
  const address = parsed.value;
  const row = model.addresses.find((candidate) => candidate.address === text);
  if (row !== undefined) {
    const labels = row.pending ? undefined : model.identities.find(({ id }) => id === row.identity)?.labels;
    const pod = labels && podOfIdentity(labels);
    const isPod = row.kind === 'pod';
    const { identity, namedPorts, apiServer = false } = row;
    return { address, identity, apiServer, isPod, ...(pod && { pod }), namedPorts };
  }
  const identity = prefixIdentity(model.prefixes, address);
  return { address, identity, apiServer: false, isPod: false, namedPorts: [] };
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
