// Ends of a connection as people name them: a pod, labels that need not exist yet, an address, an entity, a service.
import {
  identityLabels,
  metaLabels,
  podOfIdentity,
  type ReservedName,
  reservedIdentities,
  reservedName,
} from '../../core/identity.ts';
import { formatAddress, parseAddress } from '../../core/ip.ts';
import { parseLabel, selectorMatches } from '../../core/labels.ts';
import { type AddressRow, type PolicyServiceRow, protocolNumbers } from '../../core/rows.ts';
import { type Party, type PolicyModel, partyOf, type Service } from './evaluate.ts';
import { icmpType } from './icmp-types.ts';

/** An end with the name that answers give it. */
export interface NamedParty {
  readonly name: string;
  readonly party: Party;
}

/** Some ends, or why there are none. */
export type Ends =
  | { readonly ok: true; readonly ends: readonly NamedParty[] }
  | { readonly ok: false; readonly reason: string; readonly hint: string };

/** An address for documentation stands for everything outside. */
const worldAddress = '203.0.113.1';

/**
 * Finds who is meant. `shop/cart-7c4` is a pod, or every pod of a workload of that name; `app=cart,team=a@shop` a pod with
 * these labels in the namespace `shop` (`default` without one), whether there is one or not; `10.0.0.7` whoever has the
 * address; `world`, `host`, `remote-node`, `kube-apiserver` and so on an entity; `svc shop/cart` the pods of a service.
 */
export function findEnds(model: PolicyModel, services: readonly PolicyServiceRow[], text: string): Ends {
  const wanted = text.trim();
  const address = parseAddress(wanted);
  if (address.ok) {
    const canonical = formatAddress(address.value);
    return { ok: true, ends: [{ name: nameOfAddress(model, canonical), party: partyOf(model, canonical) }] };
  }
  const service = /^(?:svc|service)[ /:](?:([^/ ]+)\/)?([^/ ]+)$/.exec(wanted);
  if (service !== null) return serviceEnds(model, services, service[1] ?? 'default', service[2]!);
  if (wanted.includes('=')) return { ok: true, ends: [labelledEnd(model, wanted)] };
  if (Object.hasOwn(reservedIdentities, wanted)) return entityEnd(model, wanted);
  const pod = /^([a-z0-9][-a-z0-9.]*)\/([a-z0-9][-a-z0-9.]*)$/.exec(wanted);
  if (pod !== null) return podEnds(model, pod[1]!, pod[2]!);
  return {
    ok: false,
    reason: `${JSON.stringify(text)} is nobody that can be found`,
    hint: 'Use namespace/pod, labels such as app=web@shop, an address, an entity such as world, or svc namespace/name.',
  };
}

function podEnds(model: PolicyModel, namespace: string, name: string): Ends {
  const rows = model.addresses.filter((row) => row.kind === 'pod' && row.namespace === namespace);
  const exact = rows.filter((row) => row.pod === name);
  const found = exact.length > 0 ? exact : rows.filter((row) => row.workload?.name === name);
  if (found.length === 0) {
    const others = [...new Set(rows.map((row) => row.pod))].slice(0, 5).join(', ');
    return {
      ok: false,
      reason: `there is no pod ${namespace}/${name}`,
      hint: others === '' ? `No pod of namespace ${namespace} is known.` : `In ${namespace} there are ${others}, ...`,
    };
  }
  return { ok: true, ends: onePerPod(model, found) };
}

/** Both addresses of a pod are one end, unless policies part them by blocks: then the first of each family stands for it. */
function onePerPod(model: PolicyModel, rows: readonly AddressRow[]): NamedParty[] {
  const named = new Map<string, NamedParty>();
  for (const row of rows) {
    const name = `${row.namespace}/${row.pod}`;
    if (!named.has(name)) named.set(name, { name, party: partyOf(model, row.address) });
  }
  return [...named.values()];
}

function serviceEnds(model: PolicyModel, services: readonly PolicyServiceRow[], namespace: string, name: string): Ends {
  const service = services.find((row) => row.namespace === namespace && row.name === name);
  if (service === undefined) {
    return {
      ok: false,
      reason: `there is no service ${namespace}/${name}`,
      hint: '`kubectl get services -A` shows what there is.',
    };
  }
  const { selector, addresses } = service;
  const rows = model.addresses.filter((row) => {
    // Pods that a selector tells apart by labels that identities do not have are known by their addresses.
    if (selector === undefined || addresses.length > 0) return addresses.includes(row.address);
    if (row.kind !== 'pod' || row.namespace !== namespace) return false;
    const labels = model.identities.find(({ id }) => id === row.identity)?.labels;
    const pod = labels && podOfIdentity(labels);
    return pod !== undefined && selectorMatches({ matchLabels: selector, matchExpressions: [] }, pod.labels);
  });
  const ends =
    selector === undefined
      ? addresses.map((each) => ({ name: nameOfAddress(model, each), party: partyOf(model, each) }))
      : onePerPod(model, rows);
  if (ends.length > 0) return { ok: true, ends };
  return { ok: false, reason: `service ${namespace}/${name} has nobody who serves it`, hint: 'Are its pods there?' };
}

/** A pod that need not exist: `app=web,team=a@shop`. */
function labelledEnd(model: PolicyModel, text: string): NamedParty {
  const at = text.lastIndexOf('@');
  const labels: Record<string, string> = {};
  for (const part of (at < 0 ? text : text.slice(0, at)).split(',')) {
    const { key, value } = parseLabel(part.trim());
    labels[key] = value;
  }
  const {
    [metaLabels.namespace]: named,
    [metaLabels.serviceAccount]: serviceAccount = 'default',
    [metaLabels.cluster]: cluster = 'default',
    ...own
  } = labels;
  const namespace = at < 0 ? (named ?? 'default') : text.slice(at + 1);
  const all = identityLabels({ namespace, serviceAccount, labels: own, cluster });
  const pod = podOfIdentity(all)!;
  const same = model.identities.find((row) => row.labels.join() === all.join());
  const known = model.addresses.find((row) => row.identity === same?.id && row.kind === 'pod');
  return {
    name: text,
    party: { identity: same?.id ?? 0, apiServer: false, isPod: true, pod, namedPorts: known?.namedPorts ?? [] },
  };
}

function entityEnd(model: PolicyModel, name: string): Ends {
  if (name === 'world') {
    return { ok: true, ends: [{ name, party: partyOf(model, worldAddress) }] };
  }
  const identity = reservedIdentities[name as ReservedName];
  const row = model.addresses.find((each) => each.identity === identity);
  const party: Party =
    row === undefined
      ? { identity, apiServer: name === 'kube-apiserver', isPod: false, namedPorts: [] }
      : partyOf(model, row.address);
  return { ok: true, ends: [{ name, party }] };
}

function nameOfAddress(model: PolicyModel, address: string): string {
  const row = model.addresses.find((each) => each.address === address);
  if (row?.pod !== undefined) return `${row.namespace}/${row.pod}`;
  const name = reservedName(partyOf(model, address).identity);
  return name === undefined ? address : `${address} (${name})`;
}

/** What may be asked of a connection: `80`, `80/tcp`, `53/udp`, `sctp/3868`, `icmp`, `icmp/3`, `icmpv6/128`, `gre`. */
export function parseService(text: string): Service | undefined {
  const lower = text.trim().toLowerCase();
  const icmp = /^(icmp|icmpv6)(?:\/(.+))?$/.exec(lower);
  if (icmp !== null) {
    const six = icmp[1] === 'icmpv6';
    const type = icmpType(icmp[2] ?? (six ? '128' : '8'), six ? 'IPv6' : 'IPv4');
    return type === undefined ? undefined : { protocol: six ? 58 : 1, port: type };
  }
  const plain = { vrrp: 112, igmp: 2, gre: 47, ipip: 4, esp: 50, ah: 51 } as const;
  if (Object.hasOwn(plain, lower)) return { protocol: plain[lower as keyof typeof plain], port: 0 };
  const parts = lower.split('/');
  const number = parts.find((part) => /^\d+$/.test(part));
  const word = parts.find((part) => !/^\d+$/.test(part)) ?? 'tcp';
  const protocol = protocolNumbers[word.toUpperCase() as keyof typeof protocolNumbers];
  if (parts.length > 2 || number === undefined || protocol === undefined) return undefined;
  const port = Number(number);
  return port >= 1 && port <= 65_535 ? { protocol, port } : undefined;
}
