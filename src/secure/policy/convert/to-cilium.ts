// Writes a policy as a CiliumNetworkPolicy or CiliumClusterwideNetworkPolicy. One rule becomes several where its peers are
// of several kinds, or its ports do not go together.
import { metaLabels, namespaceLabelKey, reservedIdentities, reservedName } from '../../../core/identity.ts';
import { type LabelSelector, selectorKeys } from '../../../core/labels.ts';
import {
  type Direction,
  type PolicyPort,
  type PolicyRule,
  protocolNumbers,
  type WrittenPeer,
  type WrittenPolicy,
} from '../../../core/rows.ts';
import { type Fields, isOnlyNamespace, type Lose, selectorFields, selectorParts } from './written-parts.ts';

/** The spec. `namespace` is empty for a clusterwide policy. */
export function ciliumSpec(spec: WrittenPolicy, namespace: string, path: string, lose: Lose): Fields {
  if (spec.tier !== 'normal')
    lose(
      `${path}.tier`,
      'policies of cilium.io/v2 are asked after the tier Admin and before Baseline, with all others',
    );
  const lists: Record<string, Fields[]> = {};
  for (const direction of ['ingress', 'egress'] as const) {
    warnOfOrder(spec, direction, path, lose);
    for (const rule of spec[direction]) {
      const list = rule.action === 'deny' ? `${direction}Deny` : direction;
      const rules = rulesOf(rule, direction, namespace, `${path}.${rule.list}[${rule.index}]`, lose);
      if (rules.length > 0) lists[list] = [...(lists[list] ?? []), ...rules];
    }
  }
  const posture: Record<string, boolean> = {};
  for (const direction of ['ingress', 'egress'] as const) {
    const written = lists[direction] !== undefined || lists[`${direction}Deny`] !== undefined;
    // A rule with nothing in it allows nothing, and isolates.
    if (spec.isolates[direction] && !written) lists[direction] = [{}];
    if (!spec.isolates[direction] && written) posture[direction] = false;
  }
  if (Object.keys(lists).length === 0) lists.ingress = [];
  const { subject, nodeSelector, log } = spec;
  return {
    ...(subject.kind === 'node'
      ? { nodeSelector: selectorFields(nodeSelector ?? { matchLabels: {}, matchExpressions: [] }) }
      : { endpointSelector: subjectOf(subject.selector, namespace, path, lose) }),
    ...(Object.keys(posture).length > 0 && { enableDefaultDeny: posture }),
    ...(log !== undefined && { log: { value: log } }),
    ...lists,
  };
}

/** In order, an Accept before a Deny wins; here a Deny always does. */
function warnOfOrder(spec: WrittenPolicy, direction: Direction, path: string, lose: Lose): void {
  if (spec.tier === 'normal') return;
  const rules = spec[direction];
  const accept = rules.findIndex(({ action }) => action === 'allow');
  const deny = rules.findLastIndex(({ action }) => action === 'deny');
  if (accept >= 0 && deny > accept)
    lose(`${path}.${direction}[${deny}]`, 'it would be asked before the rules that accept above it');
}

function subjectOf(selector: LabelSelector, namespace: string, path: string, lose: Lose): Fields {
  const parts = selectorParts(selector);
  if (namespace === '') return endpointFields(selector);
  if (!isOnlyNamespace(parts, namespace)) {
    lose(path, `a CiliumNetworkPolicy selects pods of its own namespace, ${namespace}, and of no other`);
  }
  return endpointFields(without(selector, (key) => key === metaLabels.namespace));
}

function without({ matchLabels, matchExpressions }: LabelSelector, drop: (key: string) => boolean): LabelSelector {
  return {
    matchLabels: Object.fromEntries(Object.entries(matchLabels).filter(([key]) => !drop(key))),
    matchExpressions: matchExpressions.filter(({ key }) => !drop(key)),
  };
}

/** Keys that Weir and Cilium add are written with their source; those of namespaces stand as they are. */
function endpointFields(selector: LabelSelector): Fields {
  const onlyExists = selector.matchExpressions.every(
    ({ key, operator }) => key === metaLabels.namespace && operator === 'Exists',
  );
  if (onlyExists && Object.keys(selector.matchLabels).length === 0) return {};
  return selectorFields(selector);
}

function rulesOf(
  { action, peers, ports }: PolicyRule<WrittenPeer>,
  direction: Direction,
  namespace: string,
  path: string,
  lose: Lose,
): Fields[] {
  if (action === 'pass') {
    lose(path, 'policies of cilium.io/v2 pass nothing on: the rule is left out');
    return [];
  }
  const word = direction === 'ingress' ? 'from' : 'to';
  const groups = peers === undefined ? [undefined] : peerGroups(peers, namespace, word, path, lose);
  const parts = ports === undefined ? [{}] : portParts(ports, action === 'deny', path, lose);
  return groups.flatMap((group) => {
    // Neither peers nor ports would allow nothing: here everybody is meant.
    if (group?.toServices !== undefined && ports !== undefined) lose(path, 'toServices goes without ports');
    return parts.map((part) => ({
      ...(group ?? (ports === undefined ? { [`${word}Entities`]: ['all'] } : {})),
      ...part,
    }));
  });
}

/** Peers of each kind for themselves: one rule holds one kind. */
function peerGroups(
  peers: readonly WrittenPeer[],
  namespace: string,
  word: string,
  path: string,
  lose: Lose,
): Fields[] {
  const groups = new Map<string, unknown[]>();
  const put = (field: string, ...entries: unknown[]): void =>
    void groups.set(field, [...(groups.get(field) ?? []), ...entries]);
  for (const peer of peers) {
    switch (peer.kind) {
      case 'endpoints':
        put(`${word}Endpoints`, peerSelector(peer.selector, namespace));
        break;
      case 'reserved':
        for (const entity of entitiesOf(peer.identities, path, lose)) put(`${word}Entities`, entity);
        break;
      case 'block': {
        if (peer.reach !== 'outside')
          lose(path, `${peer.cidr} would stand for what is outside of the cluster only, not for pods and nodes`);
        put(`${word}CIDRSet`, { cidr: peer.cidr, ...(peer.except.length > 0 && { except: [...peer.except] }) });
        break;
      }
      case 'cidr-group':
        put(`${word}CIDRSet`, { cidrGroupRef: peer.name, ...(peer.except.length > 0 && { except: [...peer.except] }) });
        break;
      case 'cidr-groups':
        put(`${word}CIDRSet`, {
          cidrGroupSelector: selectorFields(peer.selector),
          ...(peer.except.length > 0 && { except: [...peer.except] }),
        });
        break;
      case 'nodes':
        put(`${word}Nodes`, selectorFields(peer.selector));
        break;
      case 'service':
        put('toServices', {
          k8sService: { serviceName: peer.name, ...(peer.namespace !== undefined && { namespace: peer.namespace }) },
        });
        break;
      case 'services':
        put('toServices', {
          k8sServiceSelector: {
            selector: selectorFields(peer.selector),
            ...(peer.namespace !== undefined && { namespace: peer.namespace }),
          },
        });
        break;
    }
  }
  return [...groups].map(([field, entries]) => ({ [field]: entries }));
}

/** In a policy of a namespace, peers are of that namespace unless the selector says which. */
function peerSelector(selector: LabelSelector, namespace: string): Fields {
  const speaks = selectorKeys(selector).some(
    (key) => key === metaLabels.namespace || namespaceLabelKey(key) !== undefined,
  );
  if (namespace === '') return endpointFields(selector);
  if (speaks) return selectorFields(selector);
  const everywhere = { key: metaLabels.namespace, operator: 'Exists' as const, values: [] };
  return selectorFields({ ...selector, matchExpressions: [...selector.matchExpressions, everywhere] });
}

const entityNames = ['host', 'remote-node', 'kube-apiserver', 'health', 'init', 'ingress', 'unmanaged'] as const;

function entitiesOf(identities: readonly number[], path: string, lose: Lose): string[] {
  const { world, 'world-ipv4': v4, 'world-ipv6': v6, 'kube-apiserver': apiServer } = reservedIdentities;
  const isWorld = [world, v4, v6, apiServer].every((each) => identities.includes(each));
  const rest = identities.filter((each) => !isWorld || ![world, v4, v6, apiServer].includes(each as never));
  return [
    ...(isWorld ? ['world'] : []),
    ...rest.flatMap((identity) => {
      const name = reservedName(identity);
      if (name !== undefined && entityNames.includes(name as never)) return [name];
      lose(path, `there is no entity for ${name ?? identity}: the peer is left out`);
      return [];
    }),
  ];
}

const maxPorts = 40;

/** ICMP and ports are rules of their own. */
function portParts(ports: readonly PolicyPort[], denies: boolean, path: string, lose: Lose): Fields[] {
  const list: Fields[] = [];
  const icmps: Fields[] = [];
  for (const port of ports) {
    if (port.kind === 'named') list.push({ port: port.name, protocol: port.protocol });
    else if (port.kind === 'range' && (port.protocol === 1 || port.protocol === 58)) {
      const family = port.protocol === 1 ? 'IPv4' : 'IPv6';
      for (let type = port.first; type <= port.last; type++) icmps.push({ family, type });
    } else {
      const protocol = protocolName(port.protocol);
      if (protocol === undefined)
        lose(path, `policies of cilium.io/v2 have no name for protocol ${port.protocol}: it is left out`);
      else if (port.kind === 'all') list.push(port.protocol in plainProtocols ? { protocol } : { port: '0', protocol });
      else list.push({ port: String(port.first), protocol, ...(port.last > port.first && { endPort: port.last }) });
    }
  }
  const parts: Fields[] = [];
  const chunks = (all: Fields[]): Fields[][] => {
    const size = denies ? Math.max(1, all.length) : maxPorts;
    return Array.from({ length: Math.ceil(all.length / size) }, (_, i) => all.slice(i * size, (i + 1) * size));
  };
  if (list.length > 0) parts.push({ toPorts: chunks(list).map((each) => ({ ports: each })) });
  for (let i = 0; i < icmps.length; i += maxPorts) parts.push({ icmps: [{ fields: icmps.slice(i, i + maxPorts) }] });
  return parts;
}

const plainProtocols: Readonly<Record<number, string>> = {
  112: 'VRRP',
  2: 'IGMP',
  47: 'GRE',
  4: 'IPIP',
  41: 'IPV6',
  50: 'ESP',
  51: 'AH',
};

function protocolName(number: number): string | undefined {
  return plainProtocols[number] ?? Object.entries(protocolNumbers).find(([, each]) => each === number)?.[0];
}
