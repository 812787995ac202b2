// Reads a ClusterNetworkPolicy (policy.networking.k8s.io/v1alpha2): rules above and below those of namespaces, asked in
// order. It isolates nobody; one that cannot be read isolates whom its subject may select, allows nothing, and denies all in
// its tier where it may have denied any.
import { ignoredLabelKeys } from '../../core/identity.ts';
import { formatCidr } from '../../core/ip.ts';
import { everything, type LabelSelector } from '../../core/labels.ts';
import {
  type Direction,
  type PolicyAction,
  type PolicyPort,
  type PolicyRule,
  type PortProtocol,
  protocolNumbers,
  type WrittenPeer,
  type WrittenPolicy,
} from '../../core/rows.ts';
import { closeSpecDenying } from './policy-limits.ts';
import {
  createPolicyReader,
  type Fields,
  inNamespaces,
  isPortName,
  isPortNumber,
  type ParsedPolicy,
  type PolicyReader,
  present,
  problemText,
} from './policy-reader.ts';

const actions: Readonly<Record<string, PolicyAction>> = { Accept: 'allow', Deny: 'deny', Pass: 'pass' };
const maxRules = 25;
const specFields = ['tier', 'priority', 'subject', 'ingress', 'egress'];

/** Parses an API object. */
export function parseClusterNetworkPolicy(given: unknown, ignoredLabels = ignoredLabelKeys): ParsedPolicy {
  const reader = createPolicyReader('ClusterNetworkPolicy', ignoredLabels);
  const { object, list, bad, problems } = reader;
  const opened = reader.open(given, { apiVersion: 'policy.networking.k8s.io/v1alpha2', namespaced: false });
  if (opened === undefined) return { problems };
  const { policy, head, enforcement } = opened;
  const spec = object(policy.spec ?? {}, 'spec', specFields);
  if (spec.tier !== 'Admin' && spec.tier !== 'Baseline') bad('spec.tier', 'must be Admin or Baseline');
  const { priority } = spec;
  if (!isPriority(priority)) bad('spec.priority', 'must be a number from 0 to 1000');
  const unenforced: string[] = [];
  const selector = subjectOf(reader, spec.subject);
  const rules = (direction: Direction): PolicyRule<WrittenPeer>[] => {
    const entries = list(spec[direction], `spec.${direction}`);
    if (entries.length > maxRules) bad(`spec.${direction}`, `has ${entries.length} rules; ${maxRules} are allowed`);
    return entries.flatMap((rule, i) => ruleOf(reader, rule, i, direction, unenforced) ?? []);
  };
  const ingress = rules('ingress');
  const egress = rules('egress');

  const broken = problems.length > 0;
  const written: WrittenPolicy = {
    ...head,
    tier: spec.tier === 'Admin' ? 'admin' : spec.tier === 'Baseline' ? 'baseline' : 'normal',
    priority: isPriority(priority) ? priority : 0,
    subject: { kind: 'endpoints', selector },
    isolates: { ingress: false, egress: false },
    ingress,
    egress,
  };
  return {
    row: {
      ...head,
      enforcement,
      specs: [broken ? closeSpecDenying(written, (direction) => mayDeny(spec, direction), true) : written],
      unenforced: broken ? [] : unenforced,
      ...(broken && { error: problemText(problems) }),
    },
    problems,
  };
}

function isPriority(given: unknown): given is number {
  return Number.isInteger(given) && (given as number) >= 0 && (given as number) <= 1000;
}

/** Whether a policy denies anything in a direction, or cannot be read well enough to tell. */
function mayDeny(spec: Fields, direction: Direction): boolean {
  if (Object.keys(spec).some((field) => !specFields.includes(field))) return true;
  const rules = spec[direction];
  if (!present(rules)) return false;
  const opens = (rule: unknown): boolean => ['Accept', 'Pass'].includes(String((rule as Fields | null)?.action));
  return !Array.isArray(rules) || !rules.every(opens);
}

function subjectOf(reader: PolicyReader, given: unknown): LabelSelector {
  const fields = reader.object(given, 'spec.subject', ['namespaces', 'pods']);
  if (Object.keys(fields).length !== 1) reader.bad('spec.subject', 'must have one of namespaces and pods');
  return podsOrNamespaces(reader, fields, 'spec.subject') ?? inNamespaces(everything, everything);
}

function podsOrNamespaces(
  reader: PolicyReader,
  fields: Readonly<Record<string, unknown>>,
  path: string,
): LabelSelector | undefined {
  if (present(fields.namespaces)) {
    return inNamespaces(everything, reader.plainSelector(fields.namespaces, `${path}.namespaces`));
  }
  if (!present(fields.pods)) return undefined;
  const pods = reader.object(fields.pods, `${path}.pods`, ['namespaceSelector', 'podSelector']);
  if (!present(pods.podSelector)) reader.bad(`${path}.pods.podSelector`, 'is missing; {} means every pod');
  return inNamespaces(
    reader.podSelector(pods.podSelector ?? {}, `${path}.pods.podSelector`),
    reader.plainSelector(pods.namespaceSelector ?? {}, `${path}.pods.namespaceSelector`),
  );
}

/** Undefined for a rule of which nothing is enforced yet. One that denies keeps its other peers: without them it would open. */
function ruleOf(
  reader: PolicyReader,
  given: unknown,
  index: number,
  direction: Direction,
  unenforced: string[],
): PolicyRule<WrittenPeer> | undefined {
  const { object, list, bad } = reader;
  const path = `spec.${direction}[${index}]`;
  const peersField = direction === 'ingress' ? 'from' : 'to';
  const fields = object(given, path, ['name', 'action', peersField, 'protocols']);
  const action = Object.hasOwn(actions, String(fields.action)) ? actions[String(fields.action)] : undefined;
  if (action === undefined) bad(`${path}.action`, 'must be Accept, Deny or Pass');
  if (present(fields.name) && reader.text(fields.name, `${path}.name`).length > 100) {
    bad(`${path}.name`, 'is longer than 100 characters');
  }
  const peersPath = `${path}.${peersField}`;
  const entries = list(fields[peersField], peersPath);
  if (entries.length === 0) bad(peersPath, 'must name at least one peer');
  if (entries.length > maxRules) bad(peersPath, `has ${entries.length} entries; ${maxRules} are allowed`);
  const before = unenforced.length;
  const peers = entries.flatMap((entry, i) => peersOf(reader, entry, `${peersPath}[${i}]`, direction, unenforced));
  const protocols = list(fields.protocols, `${path}.protocols`);
  if (present(fields.protocols) && protocols.length === 0) bad(`${path}.protocols`, 'must not be empty');
  if (protocols.length > maxRules) bad(`${path}.protocols`, `has more than ${maxRules} entries`);
  const ports = protocols.flatMap((entry, i) => portsOf(reader, entry, `${path}.protocols[${i}]`));
  const naming = ports.some((port) => port.kind === 'named');
  if (direction === 'egress' && naming && peers.some((peer) => peer.kind === 'nodes' || peer.kind === 'block')) {
    bad(`${path}.protocols`, 'names a port, which neither nodes nor networks have');
  }
  if (action === undefined) return undefined;
  if (unenforced.length > before && (action !== 'deny' || peers.length === 0)) return undefined;
  return { index, list: direction, action, peers, ...(present(fields.protocols) && { ports }) };
}

function peersOf(
  reader: PolicyReader,
  given: unknown,
  path: string,
  direction: Direction,
  unenforced: string[],
): WrittenPeer[] {
  const outside = direction === 'egress' ? ['nodes', 'networks', 'domainNames'] : [];
  const fields = reader.object(given, path, ['namespaces', 'pods', ...outside]);
  if (Object.keys(fields).length !== 1) {
    reader.bad(path, `must have exactly one of namespaces, pods${outside.map((each) => `, ${each}`).join('')}`);
  }
  const selector = podsOrNamespaces(reader, fields, path);
  if (selector !== undefined) return [{ kind: 'endpoints', selector }];
  if (direction === 'ingress') return [];
  if (present(fields.nodes)) {
    return [{ kind: 'nodes', selector: reader.plainSelector(fields.nodes, `${path}.nodes`) }];
  }
  if (present(fields.domainNames)) {
    unenforced.push(`${path}.domainNames`);
    return [];
  }
  return reader.list(fields.networks, `${path}.networks`).flatMap((text, i) => {
    const cidr = reader.cidr(text, `${path}.networks[${i}]`);
    return cidr === undefined ? [] : [{ kind: 'block', cidr: formatCidr(cidr), except: [], reach: 'any' }];
  });
}

const protocolFields: Readonly<Record<string, PortProtocol>> = { tcp: 'TCP', udp: 'UDP', sctp: 'SCTP' };

function portsOf(reader: PolicyReader, given: unknown, path: string): PolicyPort[] {
  const { object, bad } = reader;
  const fields = object(given, path, ['tcp', 'udp', 'sctp', 'destinationNamedPort']);
  const [field, ...more] = Object.keys(fields);
  if (field === undefined || more.length > 0) {
    bad(path, 'must have exactly one of tcp, udp, sctp, destinationNamedPort');
    return [];
  }
  if (field === 'destinationNamedPort') {
    const name = reader.text(fields[field], `${path}.${field}`);
    if (!isPortName(name)) bad(`${path}.${field}`, 'is not a port name');
    return (['TCP', 'UDP', 'SCTP'] as const).map((protocol) => ({ kind: 'named', protocol, name }));
  }
  if (!Object.hasOwn(protocolFields, field)) return [];
  const protocol = protocolNumbers[protocolFields[field]!];
  const inner = object(fields[field], `${path}.${field}`, ['destinationPort']);
  if (!present(inner.destinationPort)) {
    bad(`${path}.${field}.destinationPort`, 'is missing');
    return [];
  }
  const at = `${path}.${field}.destinationPort`;
  const port = object(inner.destinationPort, at, ['number', 'range']);
  if (Object.keys(port).length !== 1) bad(at, 'must have one of number and range');
  if (present(port.number)) {
    if (!isPortNumber(port.number)) bad(`${at}.number`, 'must be a number from 1 to 65535');
    return [{ kind: 'range', protocol, first: port.number as number, last: port.number as number }];
  }
  const { start, end } = object(port.range, `${at}.range`, ['start', 'end']);
  if (!isPortNumber(start) || !isPortNumber(end) || start >= end) {
    bad(`${at}.range`, 'must have a start below its end, both from 1 to 65535');
    return [];
  }
  return [{ kind: 'range', protocol, first: start, last: end }];
}
