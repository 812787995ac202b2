// One rule of a Cilium policy. What Cilium refuses is refused, in the same cases; an empty list of peers selects nobody,
// an absent one everybody; a rule with neither peers nor ports allows nothing.
// Source of the cases: the field descriptions of the CRDs and the documentation of layer 3 and layer 4 policies.
import { allPods, reservedIdentities } from '../../core/identity.ts';
import { cidrContains, formatCidr } from '../../core/ip.ts';
import {
  type PolicyPort,
  type PolicyRule,
  type PortProtocol,
  protocolNumbers,
  type RuleList,
  type WrittenPeer,
} from '../../core/rows.ts';
import type { CiliumSelectors } from './cilium-selectors.ts';
import { icmpType } from './icmp-types.ts';
import { type Fields, isPortName, type PolicyReader, parseCidrOrAddress, present } from './policy-reader.ts';

/** A rule as read. */
export interface CiliumRule {
  readonly rule: Pick<PolicyRule<WrittenPeer>, 'action' | 'peers' | 'ports'>;
  /** The places of what is not enforced yet. */
  readonly unenforced: readonly string[];
  readonly layer7: boolean;
}

const entities: Readonly<Record<string, readonly number[]>> = {
  world: [
    reservedIdentities.world,
    reservedIdentities['world-ipv4'],
    reservedIdentities['world-ipv6'],
    // An API server that is not on a node of the cluster is outside of it.
    reservedIdentities['kube-apiserver'],
  ],
  host: [reservedIdentities.host],
  init: [reservedIdentities.init],
  ingress: [reservedIdentities.ingress],
  unmanaged: [reservedIdentities.unmanaged],
  'remote-node': [reservedIdentities['remote-node']],
  health: [reservedIdentities.health],
  'kube-apiserver': [reservedIdentities['kube-apiserver']],
  none: [],
};
const cluster = [
  reservedIdentities.host,
  reservedIdentities['remote-node'],
  reservedIdentities.init,
  reservedIdentities.ingress,
  reservedIdentities.unmanaged,
  reservedIdentities.health,
  reservedIdentities['kube-apiserver'],
];

/** IP protocols beside those with ports. */
const protocolsWithoutPorts: Readonly<Record<string, number>> = {
  VRRP: 112,
  IGMP: 2,
  GRE: 47,
  IPIP: 4,
  IPV6: 41,
  ESP: 50,
  AH: 51,
};
const portProtocols = ['TCP', 'UDP', 'SCTP'] as const;
const maxPorts = 40;
const maxIcmpFields = 40;

/** Parses one rule; `path` is where it stands. */
export function parseCiliumRule(
  reader: PolicyReader,
  selectors: CiliumSelectors,
  given: unknown,
  path: string,
  list: RuleList,
): CiliumRule {
  const from = list.startsWith('ingress');
  const denies = list.endsWith('Deny');
  const word = from ? 'from' : 'to';
  const peerFields = [`${word}Endpoints`, `${word}Entities`, `${word}CIDR`, `${word}CIDRSet`, `${word}Nodes`];
  const unread = [`${word}Groups`, ...(from || denies ? [] : ['toFQDNs'])];
  const services = from ? [] : ['toServices'];
  const allowed = [
    ...peerFields,
    ...unread,
    ...services,
    `${word}Requires`,
    'toPorts',
    'icmps',
    ...(denies ? [] : ['authentication']),
  ];
  const fields = reader.object(given, path, allowed);
  const unenforced: string[] = [];
  const used = [...peerFields, ...unread, ...services].filter(
    (name) => Array.isArray(fields[name]) && fields[name].length > 0,
  );
  if (used.length > 1) {
    reader.bad(path, `combines ${used.slice(0, 2).join(' and ')}; write them as two rules`);
  }
  for (const name of unread) if (used.includes(name)) unenforced.push(`${path}.${name}`);
  if (reader.list(fields[`${word}Requires`], `${path}.${word}Requires`).length > 0) {
    reader.bad(`${path}.${word}Requires`, 'is no longer supported; use matchExpressions');
  }
  if (used.includes('toServices') && reader.list(fields.toPorts, `${path}.toPorts`).length > 0) {
    reader.bad(path, 'combines toServices and toPorts; a service brings its own ports');
  }
  const authentication = reader.object(fields.authentication ?? {}, `${path}.authentication`, ['mode']);
  if (present(fields.authentication)) {
    const { mode } = authentication;
    if (!['disabled', 'required', 'test-always-fail'].includes(String(mode))) {
      reader.bad(`${path}.authentication.mode`, 'must be disabled, required or test-always-fail');
    } else if (mode !== 'disabled') unenforced.push(`${path}.authentication`);
  }

  const readers = createPeerReaders(reader, selectors);
  const given_lists = [...peerFields, ...unread, ...services].filter((name) => present(fields[name]));
  const peers = [...peerFields, ...services].flatMap((name) =>
    reader.list(fields[name], `${path}.${name}`).flatMap((entry, i) => {
      const at = `${path}.${name}[${i}]`;
      if (name.endsWith('Endpoints')) return selectors.peers(entry, at);
      if (name.endsWith('Entities')) return readers.entity(entry, at);
      if (name.endsWith('CIDR')) return readers.cidr(entry, at);
      if (name.endsWith('CIDRSet')) return readers.cidrSet(entry, at);
      if (name.endsWith('Nodes')) return [{ kind: 'nodes' as const, selector: reader.plainSelector(entry, at) }];
      return readers.service(entry, at);
    }),
  );
  const everybody = reader
    .list(fields[`${word}Entities`], `${path}.${word}Entities`)
    .some((entity) => entity === 'all');
  const toPorts = portsOf(reader, fields.toPorts, `${path}.toPorts`, { from, denies });
  const icmps = icmpsOf(reader, fields.icmps, `${path}.icmps`);
  if (toPorts.ports !== undefined && icmps !== undefined) {
    reader.bad(path, 'has icmps beside toPorts; write them as two rules');
  }
  unenforced.push(...toPorts.unenforced);
  const ports = toPorts.ports ?? icmps;
  // A rule that says nothing at all allows nothing; it only isolates.
  const empty = given_lists.length === 0 && ports === undefined;
  return {
    rule: {
      action: denies ? 'deny' : 'allow',
      ...(empty ? { peers: [] } : given_lists.length > 0 && !everybody && { peers }),
      ...(ports !== undefined && { ports }),
    },
    unenforced,
    layer7: toPorts.unenforced.length > 0,
  };
}

function createPeerReaders(reader: PolicyReader, selectors: CiliumSelectors) {
  function entity(given: unknown, path: string): WrittenPeer[] {
    const name = reader.text(given, path);
    if (name === 'all') return [];
    if (name === 'cluster' || name === 'cluster-mesh') {
      return [
        { kind: 'reserved', identities: cluster },
        { kind: 'endpoints', selector: allPods },
      ];
    }
    if (!Object.hasOwn(entities, name)) {
      reader.bad(path, `is not an entity; they are all, cluster, cluster-mesh, ${Object.keys(entities).join(', ')}`);
      return [];
    }
    const identities = entities[name]!;
    return identities.length === 0 ? [] : [{ kind: 'reserved', identities }];
  }

  function cidr(given: unknown, path: string): WrittenPeer[] {
    const parsed = parseCidrOrAddress(given);
    if (parsed.ok) return [{ kind: 'block', cidr: formatCidr(parsed.value), except: [], reach: 'outside' }];
    reader.bad(path, `is not a block: ${parsed.reason}`);
    return [];
  }

  function cidrSet(given: unknown, path: string): WrittenPeer[] {
    const fields = reader.object(given, path, ['cidr', 'except', 'cidrGroupRef', 'cidrGroupSelector']);
    const which = ['cidr', 'cidrGroupRef', 'cidrGroupSelector'].filter((name) => present(fields[name]));
    if (which.length !== 1) {
      reader.bad(path, 'must have one of cidr, cidrGroupRef, cidrGroupSelector');
      return [];
    }
    const block = which[0] === 'cidr' ? reader.cidr(fields.cidr, `${path}.cidr`) : undefined;
    const except = reader.list(fields.except, `${path}.except`).flatMap((text, i) => {
      const inner = reader.cidr(text, `${path}.except[${i}]`);
      if (inner === undefined) return [];
      if (block !== undefined && !cidrContains(block, inner)) {
        reader.bad(`${path}.except[${i}]`, `must be inside of ${formatCidr(block)}`);
      }
      return [formatCidr(inner)];
    });
    const without = [...new Set(except)].sort();
    if (which[0] === 'cidrGroupRef') {
      return [{ kind: 'cidr-group', name: reader.text(fields.cidrGroupRef, `${path}.cidrGroupRef`), except: without }];
    }
    if (which[0] === 'cidrGroupSelector') {
      const selector = reader.plainSelector(fields.cidrGroupSelector, `${path}.cidrGroupSelector`);
      return [{ kind: 'cidr-groups', selector, except: without }];
    }
    return block === undefined ? [] : [{ kind: 'block', cidr: formatCidr(block), except: without, reach: 'outside' }];
  }

  function service(given: unknown, path: string): WrittenPeer[] {
    const fields = reader.object(given, path, ['k8sService', 'k8sServiceSelector']);
    const found: WrittenPeer[] = [];
    if (present(fields.k8sService)) {
      const at = `${path}.k8sService`;
      const { namespace, serviceName } = reader.object(fields.k8sService, at, ['namespace', 'serviceName']);
      if (!present(serviceName)) reader.bad(`${at}.serviceName`, 'is missing');
      // Without a namespace, and with an empty one, it is the service of that name in any.
      found.push({
        kind: 'service',
        namespace: (present(namespace) && reader.text(namespace, `${at}.namespace`)) || undefined,
        name: String(serviceName),
      });
    }
    if (present(fields.k8sServiceSelector)) {
      const at = `${path}.k8sServiceSelector`;
      const inner = reader.object(fields.k8sServiceSelector, at, ['namespace', 'selector']);
      const namespace = (present(inner.namespace) && reader.text(inner.namespace, `${at}.namespace`)) || undefined;
      found.push({ kind: 'services', namespace, selector: reader.plainSelector(inner.selector, `${at}.selector`) });
    }
    if (found.length === 0) reader.bad(path, 'must have k8sService or k8sServiceSelector');
    return found;
  }

  return { entity, cidr, cidrSet, service, selectors };
}

/** `ports` is undefined where the rule names none. */
function portsOf(
  reader: PolicyReader,
  given: unknown,
  path: string,
  { from, denies }: { from: boolean; denies: boolean },
): { ports?: PolicyPort[]; unenforced: string[] } {
  const entries = reader.list(given, path);
  const unenforced: string[] = [];
  if (entries.length === 0) return { unenforced };
  const layer7 = ['rules', 'serverNames', 'terminatingTLS', 'originatingTLS', 'listener'];
  const ports = entries.flatMap((entry, i) => {
    const at = `${path}[${i}]`;
    const fields = reader.object(entry, at, ['ports', ...(denies ? [] : layer7)]);
    for (const name of denies ? [] : layer7) if (speaks(fields[name])) unenforced.push(`${at}.${name}`);
    checkLayer7(reader, fields, at, from);
    const list = reader.list(fields.ports, `${at}.ports`);
    if (list.length === 0) {
      // The description of the field leaves this open. What Cilium makes of it is no port at all, not all of them.
      const remedy = 'to mean all ports leave toPorts out';
      reader.remark(at, `names no ports, so that it ${denies ? 'denies' : 'allows'} nothing: ${remedy}`);
    }
    if (!denies && list.length > maxPorts)
      reader.bad(`${at}.ports`, `has ${list.length} ports; ${maxPorts} are allowed`);
    return list.flatMap((port, j) => portOf(reader, port, `${at}.ports[${j}]`));
  });
  return { ports, unenforced };
}

/** Whether a field of layer 7 asks for anything. */
function speaks(value: unknown): boolean {
  if (!present(value)) return false;
  if (Array.isArray(value)) return value.length > 0;
  if (typeof value !== 'object') return true;
  const inner = Object.values(value as object);
  return inner.some((each) => !Array.isArray(each) || each.length > 0);
}

const ruleKinds = ['http', 'dns', 'kafka', 'l7', 'l7proto'];

function checkLayer7(reader: PolicyReader, fields: Fields, path: string, from: boolean): void {
  if (!present(fields.rules)) return;
  const rules = reader.object(fields.rules, `${path}.rules`, ruleKinds);
  const kinds = ruleKinds.filter((kind) => kind !== 'l7' && present(rules[kind]));
  if (kinds.length > 1) reader.bad(`${path}.rules`, `has ${kinds.join(' and ')}; one kind is allowed`);
  if (from && reader.list(rules.dns, `${path}.rules.dns`).length > 0) {
    reader.bad(`${path}.rules.dns`, 'is for egress only');
  }
  for (const kind of ['http', 'dns', 'kafka'] as const) {
    reader.list(rules[kind], `${path}.rules.${kind}`).forEach((rule, i) => {
      reader.object(rule, `${path}.rules.${kind}[${i}]`);
    });
  }
}

function portOf(reader: PolicyReader, given: unknown, path: string): PolicyPort[] {
  const fields = reader.object(given, path, ['port', 'endPort', 'protocol']);
  const protocol = present(fields.protocol) ? reader.text(fields.protocol, `${path}.protocol`).toUpperCase() : 'ANY';
  if (Object.hasOwn(protocolsWithoutPorts, protocol)) {
    if (present(fields.port) && String(fields.port) !== '0')
      reader.bad(`${path}.port`, `has no meaning with ${protocol}`);
    return [{ kind: 'all', protocol: protocolsWithoutPorts[protocol]! }];
  }
  const protocols: readonly PortProtocol[] | undefined =
    protocol === 'ANY' ? portProtocols : portProtocols.filter((each) => each === protocol);
  if (protocols.length === 0) {
    reader.bad(
      `${path}.protocol`,
      `must be ANY, ${portProtocols.join(', ')} or ${Object.keys(protocolsWithoutPorts).join(', ')}`,
    );
    return [];
  }
  const text = present(fields.port) ? reader.text(fields.port, `${path}.port`) : '';
  if (text === '') {
    reader.bad(`${path}.port`, 'is missing');
    return [];
  }
  if (!/^\d+$/.test(text)) {
    const name = text.toLowerCase();
    if (!isPortName(name)) reader.bad(`${path}.port`, 'is neither a number in quotes nor the name of a port');
    return protocols.map((each) => ({ kind: 'named', protocol: each, name }));
  }
  const first = Number(text);
  if (first > 65_535) reader.bad(`${path}.port`, 'must be from 0 to 65535');
  const endPort = present(fields.endPort) ? fields.endPort : 0;
  if (!Number.isInteger(endPort) || (endPort as number) < 0 || (endPort as number) > 65_535) {
    reader.bad(`${path}.endPort`, 'must be a number from 0 to 65535');
    return [];
  }
  // Port 0 is any port, and an end of 0 is none.
  if (first === 0) return protocols.map((each) => ({ kind: 'all', protocol: protocolNumbers[each] }));
  const last = endPort === 0 ? first : (endPort as number);
  if (last < first) reader.bad(`${path}.endPort`, `must not be below port, ${first}`);
  return protocols.map((each) => ({ kind: 'range', protocol: protocolNumbers[each], first, last }));
}

function icmpsOf(reader: PolicyReader, given: unknown, path: string): PolicyPort[] | undefined {
  const entries = reader.list(given, path);
  if (entries.length === 0) return undefined;
  return entries.flatMap((entry, i) => {
    const at = `${path}[${i}].fields`;
    const { fields } = reader.object(entry, `${path}[${i}]`, ['fields']);
    const list = reader.list(fields, at);
    if (list.length > maxIcmpFields) reader.bad(at, `has ${list.length} fields; ${maxIcmpFields} are allowed`);
    return list.flatMap((field, j): PolicyPort[] => {
      const { family = 'IPv4', type } = reader.object(field, `${at}[${j}]`, ['family', 'type']);
      if (family !== 'IPv4' && family !== 'IPv6') {
        reader.bad(`${at}[${j}].family`, 'must be IPv4 or IPv6');
        return [];
      }
      const number = icmpType(type, family);
      if (number === undefined) {
        reader.bad(`${at}[${j}].type`, `is not a type of ICMP for ${family}: a number from 0 to 255 or a name`);
        return [];
      }
      return [{ kind: 'range', protocol: family === 'IPv4' ? 1 : 58, first: number, last: number }];
    });
  });
}
