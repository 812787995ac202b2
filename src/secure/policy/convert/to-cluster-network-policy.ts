// Writes a policy as a ClusterNetworkPolicy of the tier Admin: rules in order, above all others. It isolates nobody, so
// little can be converted without losing something; what, is said.
import {
  type Direction,
  type PolicyPort,
  type PolicyRule,
  protocolNumbers,
  type WrittenPeer,
  type WrittenPolicy,
} from '../../../core/rows.ts';
import { type Fields, type Lose, selectorFields, selectorParts } from './written-parts.ts';

const everywhere = { matchLabels: {}, matchExpressions: [] };

/** The spec. */
export function clusterNetworkPolicySpec(spec: WrittenPolicy, path: string, lose: Lose): Fields {
  if (spec.subject.kind === 'node') lose(`${path}.nodeSelector`, 'a ClusterNetworkPolicy selects pods, and no nodes');
  if (spec.log !== undefined) lose(`${path}.log`, 'flows would not carry it');
  if (spec.tier === 'normal')
    lose(
      path,
      'the tier Admin is asked first: policies of namespaces could no longer deny what it accepts, nor accept what it denies',
    );
  for (const direction of ['ingress', 'egress'] as const) {
    if (spec.isolates[direction])
      lose(
        `${path}.${direction}`,
        `a ClusterNetworkPolicy isolates nobody: what no rule allows for ${direction} would be allowed`,
      );
  }
  const rules = (direction: Direction): Fields[] => {
    // Denials win in the other kinds: here they do by standing first.
    const order = [...spec[direction]].sort((a, b) =>
      spec.tier === 'normal' ? Number(b.action === 'deny') - Number(a.action === 'deny') : 0,
    );
    return order.flatMap((rule): Fields[] => {
      const made = ruleOf(rule, direction, `${path}.${rule.list}[${rule.index}]`, lose);
      return made === undefined ? [] : [made];
    });
  };
  const [ingress, egress] = [rules('ingress'), rules('egress')];
  return {
    tier: spec.tier === 'baseline' ? 'Baseline' : 'Admin',
    priority: spec.tier === 'normal' ? 500 : spec.priority,
    subject: spec.subject.kind === 'node' ? { namespaces: {} } : podsOf(spec.subject.selector, path, lose),
    ...(ingress.length > 0 && { ingress }),
    ...(egress.length > 0 && { egress }),
  };
}

function podsOf(selector: Parameters<typeof selectorParts>[0], path: string, lose: Lose): Fields {
  const { pods, namespaces, others } = selectorParts(selector);
  for (const key of others) lose(path, `a ClusterNetworkPolicy cannot select pods by ${key}`);
  const podSelector = selectorFields(pods);
  const namespaceSelector = selectorFields(namespaces ?? everywhere);
  return Object.keys(podSelector).length === 0
    ? { namespaces: namespaceSelector }
    : { pods: { namespaceSelector, podSelector } };
}

function ruleOf(
  { action, peers, ports }: PolicyRule<WrittenPeer>,
  direction: Direction,
  path: string,
  lose: Lose,
): Fields | undefined {
  const to = (peers ?? []).flatMap((peer) => peerOf(peer, direction, path, lose) ?? []);
  if (peers === undefined) {
    lose(
      path,
      direction === 'egress'
        ? 'everybody can be named as namespaces and networks only, and no nodes'
        : 'for ingress pods alone can be named',
    );
    to.push({ namespaces: {} }, ...(direction === 'egress' ? [{ networks: ['0.0.0.0/0', '::/0'] }] : []));
  }
  const list = ports?.flatMap((port) => portOf(port, path, lose) ?? []);
  if (to.length === 0 || list?.length === 0) return undefined;
  const names = { allow: 'Accept', deny: 'Deny', pass: 'Pass' };
  return { action: names[action], [direction === 'ingress' ? 'from' : 'to']: to, ...(list && { protocols: list }) };
}

function peerOf(peer: WrittenPeer, direction: Direction, path: string, lose: Lose): Fields | undefined {
  if (peer.kind === 'endpoints') return podsOf(peer.selector, path, lose);
  if (direction === 'egress' && peer.kind === 'nodes') return { nodes: selectorFields(peer.selector) };
  if (direction === 'egress' && peer.kind === 'block' && peer.except.length === 0) {
    if (peer.reach !== 'any') lose(path, `${peer.cidr} would stand for pods and nodes with such addresses, too`);
    return { networks: [peer.cidr] };
  }
  const what =
    { reserved: 'entities', block: direction === 'egress' ? 'exceptions of blocks' : 'blocks for ingress' }[
      peer.kind as string
    ] ?? `${peer.kind} for ${direction}`;
  lose(path, `a ClusterNetworkPolicy does not know ${what}: the peer is left out`);
  return undefined;
}

function portOf(port: PolicyPort, path: string, lose: Lose): Fields | undefined {
  if (port.kind === 'named') {
    lose(path, `the port named ${port.name} would be that of every protocol`);
    return { destinationNamedPort: port.name };
  }
  const name = Object.entries(protocolNumbers)
    .find(([, number]) => number === port.protocol)?.[0]
    .toLowerCase();
  if (name === undefined) {
    lose(path, `a ClusterNetworkPolicy knows TCP, UDP and SCTP: protocol ${port.protocol} is left out`);
    return undefined;
  }
  const [first, last] = port.kind === 'all' ? [1, 65_535] : [port.first, port.last];
  return { [name]: { destinationPort: first === last ? { number: first } : { range: { start: first, end: last } } } };
}
