// Writes a policy as a NetworkPolicy (networking.k8s.io/v1): allow rules alone, which isolate.
import {
  type PolicyPort,
  type PolicyRule,
  protocolNumbers,
  type WrittenPeer,
  type WrittenPolicy,
} from '../../../core/rows.ts';
import { type Fields, isOnlyNamespace, type Lose, selectorFields, selectorParts } from './written-parts.ts';

/** The spec. `pathOf` says where a rule stands in the original, `namespace` where the policy is to be. */
export function networkPolicySpec(spec: WrittenPolicy, namespace: string, path: string, lose: Lose): Fields {
  if (spec.subject.kind === 'node') lose(`${path}.nodeSelector`, 'a NetworkPolicy selects pods, and no nodes');
  if (spec.tier !== 'normal')
    lose(`${path}.tier`, 'a NetworkPolicy is asked after the tier Admin and before Baseline, with all others');
  if (spec.log !== undefined) lose(`${path}.log`, 'flows would not carry it');
  const rules = (direction: 'ingress' | 'egress'): Fields[] => {
    if (!spec.isolates[direction] && spec[direction].length > 0) {
      lose(
        `${path}.${direction}`,
        `rules of a NetworkPolicy isolate: what no rule allows for ${direction} would be denied`,
      );
    }
    return spec[direction].flatMap((rule): Fields[] => {
      const made = ruleOf(rule, direction, namespace, `${path}.${rule.list}[${rule.index}]`, lose);
      return made === undefined ? [] : [made];
    });
  };
  const { isolates } = spec;
  if (!isolates.ingress && !isolates.egress) lose(path, 'a NetworkPolicy always isolates');
  const ingress = rules('ingress');
  const egress = rules('egress');
  const types = [
    ...(isolates.ingress || ingress.length > 0 ? ['Ingress'] : []),
    ...(isolates.egress || egress.length > 0 ? ['Egress'] : []),
  ];
  return {
    podSelector: subjectOf(spec, namespace, path, lose),
    ...(types.length > 0 && { policyTypes: types }),
    ...(ingress.length > 0 && { ingress }),
    ...(egress.length > 0 && { egress }),
  };
}

function subjectOf(spec: WrittenPolicy, namespace: string, path: string, lose: Lose): Fields {
  if (spec.subject.kind === 'node') return {};
  const parts = selectorParts(spec.subject.selector);
  if (!isOnlyNamespace(parts, namespace)) {
    lose(path, `a NetworkPolicy selects pods of its own namespace, ${namespace}, and of no other`);
  }
  for (const key of parts.others) lose(path, `a NetworkPolicy cannot select pods by ${key}`);
  return selectorFields(parts.pods);
}

/** Undefined for a rule that allows nothing. */
function ruleOf(
  { action, peers, ports }: PolicyRule<WrittenPeer>,
  direction: 'ingress' | 'egress',
  namespace: string,
  path: string,
  lose: Lose,
): Fields | undefined {
  if (action !== 'allow') {
    lose(
      path,
      action === 'deny'
        ? 'a NetworkPolicy denies nothing: without the rule it may be allowed'
        : 'a NetworkPolicy passes nothing on',
    );
    return undefined;
  }
  const to = peers?.flatMap((peer) => peerOf(peer, namespace, path, lose) ?? []);
  const list = ports?.flatMap((port) => portOf(port, path, lose) ?? []);
  if (to?.length === 0 || list?.length === 0) return undefined;
  return { ...(to && { [direction === 'ingress' ? 'from' : 'to']: to }), ...(list && { ports: list }) };
}

function peerOf(peer: WrittenPeer, namespace: string, path: string, lose: Lose): Fields | undefined {
  if (peer.kind === 'endpoints') {
    const parts = selectorParts(peer.selector);
    if (parts.others.length > 0) {
      lose(path, `a NetworkPolicy cannot ask for ${parts.others.join(', ')}: the peer is left out`);
      return undefined;
    }
    if (isOnlyNamespace(parts, namespace)) return { podSelector: selectorFields(parts.pods) };
    const pods = selectorFields(parts.pods);
    const namespaceSelector = selectorFields(parts.namespaces ?? { matchLabels: {}, matchExpressions: [] });
    return { namespaceSelector, ...(Object.keys(pods).length > 0 && { podSelector: pods }) };
  }
  if (peer.kind === 'block') {
    if (peer.reach !== 'any')
      lose(path, `ipBlock ${peer.cidr} would stand for pods and nodes with such addresses, too`);
    const except = peer.except.filter((each) => each !== peer.cidr);
    if (except.length < peer.except.length) return undefined;
    return { ipBlock: { cidr: peer.cidr, ...(except.length > 0 && { except }) } };
  }
  const what = {
    reserved: 'entities',
    'cidr-group': 'groups of blocks',
    'cidr-groups': 'groups of blocks',
    nodes: 'nodes by their labels',
    service: 'services',
    services: 'services',
  }[peer.kind];
  lose(path, `a NetworkPolicy does not know ${what}: the peer is left out`);
  return undefined;
}

const protocolNames = Object.entries(protocolNumbers);

function portOf(port: PolicyPort, path: string, lose: Lose): Fields | undefined {
  if (port.kind === 'named') return { protocol: port.protocol, port: port.name };
  const protocol = protocolNames.find(([, number]) => number === port.protocol)?.[0];
  if (protocol === undefined) {
    lose(path, `a NetworkPolicy knows TCP, UDP and SCTP: protocol ${port.protocol} is left out`);
    return undefined;
  }
  if (port.kind === 'all') return { protocol };
  return { protocol, port: port.first, ...(port.last > port.first && { endPort: port.last }) };
}
