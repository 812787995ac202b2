// Reads a NetworkPolicy (networking.k8s.io/v1) as the API server would, and says exactly what is wrong with one that
// cannot be read. Such a policy fails closed: it isolates whatever its selector may select and allows nothing.
import { ignoredLabelKeys, labelCounts } from '../../core/identity.ts';
import { type Cidr, cidrContains, formatCidr, parseCidr } from '../../core/ip.ts';
import { everything, type LabelSelector, parseSelector, selectorKeys } from '../../core/labels.ts';
import type { NetworkPolicyRow, PolicyPeer, PolicyPort, PolicyRule, PortProtocol } from '../../core/rows.ts';

/** The annotation that makes a policy report without enforcing, with the value `staged`. */
const enforcementAnnotation = 'weir.dev/enforcement';

/** What came of a policy: a row unless it has no name to be known by, and every problem with its JSON path. */
export interface ParsedNetworkPolicy {
  readonly row?: NetworkPolicyRow;
  readonly problems: readonly string[];
}

const maxProblemsShown = 10;

/** Parses an API object. `ignoredLabels` are the label keys that identities leave out, which selectors cannot use. */
export function parseNetworkPolicy(given: unknown, ignoredLabels = ignoredLabelKeys): ParsedNetworkPolicy {
  const reader = createReader(ignoredLabels);
  const { object, list, bad, problems } = reader;
  const policy = object(given, '', ['apiVersion', 'kind', 'metadata', 'spec', 'status']);
  if (policy.apiVersion !== undefined && policy.apiVersion !== 'networking.k8s.io/v1') {
    bad('apiVersion', 'must be networking.k8s.io/v1');
  }
  if (policy.kind !== undefined && policy.kind !== 'NetworkPolicy') bad('kind', 'must be NetworkPolicy');
  const metadata = object(policy.metadata ?? {}, 'metadata');
  const { name, namespace, uid } = metadata;
  if (!isName(name)) bad('metadata.name', 'must be a name of at most 253 characters');
  if (!isName(namespace)) bad('metadata.namespace', 'must be the name of a namespace');
  if (!isName(name) || !isName(namespace)) return { problems };

  const spec = object(policy.spec ?? {}, 'spec', ['podSelector', 'ingress', 'egress', 'policyTypes']);
  const podSelector = reader.selector(spec.podSelector ?? {}, 'spec.podSelector');
  const ingress = list(spec.ingress, 'spec.ingress').map((rule, i) => reader.rule(rule, `spec.ingress[${i}]`, 'from'));
  const egress = list(spec.egress, 'spec.egress').map((rule, i) => reader.rule(rule, `spec.egress[${i}]`, 'to'));
  const isolates = reader.isolation(spec);
  const staged = reader.staged(metadata);

  const broken = problems.length > 0;
  const row: NetworkPolicyRow = {
    key: `${namespace}/${name}`,
    namespace,
    name,
    ...(typeof uid === 'string' && { uid }),
    staged,
    podSelector,
    isolates,
    ingress: broken || !isolates.ingress ? [] : ingress,
    egress: broken || !isolates.egress ? [] : egress,
    ...(broken && { error: problemText(problems) }),
  };
  return { row, problems };
}

function problemText(problems: readonly string[]): string {
  const more = problems.length - maxProblemsShown;
  const shown = problems.slice(0, maxProblemsShown).join('; ');
  return more > 0 ? `${shown}; and ${more} more` : shown;
}

function createReader(ignoredLabels: readonly string[]) {
  const problems: string[] = [];
  const bad = (path: string, text: string): void => void problems.push(path === '' ? text : `${path} ${text}`);

  function object(given: unknown, path: string, fields?: readonly string[]): Record<string, unknown> {
    if (typeof given !== 'object' || given === null || Array.isArray(given)) {
      bad(path, path === '' ? 'a NetworkPolicy must be an object' : 'must be an object');
      return {};
    }
    for (const field of Object.keys(given)) {
      if (fields !== undefined && !fields.includes(field)) {
        const at = path === '' ? field : `${path}.${field}`;
        bad(at, `is not a field here; the fields are ${fields.join(', ')}`);
      }
    }
    return given as Record<string, unknown>;
  }

  function list(given: unknown, path: string): unknown[] {
    if (given === undefined || given === null) return [];
    if (Array.isArray(given)) return given;
    bad(path, 'must be a list');
    return [];
  }

  /** Labels that identities do not have cannot be asked about: the answer would be wrong in one direction or the other. */
  function selector(given: unknown, path: string): LabelSelector {
    const parsed = parseSelector(given, path, problems);
    const unusable = selectorKeys(parsed).filter((key) => !labelCounts(key, ignoredLabels));
    if (unusable.length === 0) return parsed;
    bad(path, `uses ${unusable.join(', ')}, which changes per pod or rollout and is not part of identities`);
    return {
      matchLabels: Object.fromEntries(Object.entries(parsed.matchLabels).filter(([key]) => !unusable.includes(key))),
      matchExpressions: parsed.matchExpressions.filter(({ key }) => !unusable.includes(key)),
    };
  }

  function rule(given: unknown, path: string, peersField: 'from' | 'to'): PolicyRule {
    const fields = object(given, path, [peersField, 'ports']);
    const peersPath = `${path}.${peersField}`;
    const peers = list(fields[peersField], peersPath).map((entry, i) => peer(entry, `${peersPath}[${i}]`));
    const ports = list(fields.ports, `${path}.ports`).map((entry, i) => port(entry, `${path}.ports[${i}]`));
    return { peers, ports };
  }

  function peer(given: unknown, path: string): PolicyPeer {
    const fields = object(given, path, ['podSelector', 'namespaceSelector', 'ipBlock']);
    const { ipBlock, podSelector, namespaceSelector } = fields;
    if (present(ipBlock)) {
      if (present(podSelector) || present(namespaceSelector)) {
        bad(path, 'has ipBlock beside a selector; write them as two entries');
      }
      return block(ipBlock, `${path}.ipBlock`);
    }
    if (!present(podSelector) && !present(namespaceSelector)) {
      bad(path, 'must have podSelector, namespaceSelector or ipBlock; leave the whole list out to mean anyone');
    }
    return {
      kind: 'pods',
      podSelector: present(podSelector) ? selector(podSelector, `${path}.podSelector`) : everything,
      ...(present(namespaceSelector) && {
        namespaceSelector: parseSelector(namespaceSelector, `${path}.namespaceSelector`, problems),
      }),
    };
  }

  function block(given: unknown, path: string): PolicyPeer {
    const fields = object(given, path, ['cidr', 'except']);
    const cidr = cidrAt(fields.cidr, `${path}.cidr`);
    const except = list(fields.except, `${path}.except`).flatMap((text, i) => {
      const at = `${path}.except[${i}]`;
      const inner = cidrAt(text, at);
      if (inner === undefined || cidr === undefined) return [];
      if (!cidrContains(cidr, inner) || inner.prefixBits === cidr.prefixBits) {
        bad(at, `must be a smaller block inside of ${formatCidr(cidr)}`);
      }
      return [formatCidr(inner)];
    });
    return {
      kind: 'block',
      cidr: cidr === undefined ? '0.0.0.0/0' : formatCidr(cidr),
      except: [...new Set(except)].sort(),
    };
  }

  function cidrAt(given: unknown, path: string): Cidr | undefined {
    const parsed = parseCidr(given);
    if (parsed.ok) return parsed.value;
    bad(path, `is not a block: ${parsed.reason}`);
    return undefined;
  }

  function port(given: unknown, path: string): PolicyPort {
    const fields = object(given, path, ['protocol', 'port', 'endPort']);
    const protocol = (fields.protocol ?? 'TCP') as PortProtocol;
    if (protocol !== 'TCP' && protocol !== 'UDP' && protocol !== 'SCTP') {
      bad(`${path}.protocol`, 'must be TCP, UDP or SCTP');
    }
    const { port: number, endPort } = fields;
    if (!present(number)) {
      if (present(endPort)) bad(`${path}.endPort`, 'needs port beside it');
      return { kind: 'all', protocol };
    }
    if (typeof number === 'string') {
      if (present(endPort)) bad(`${path}.endPort`, 'cannot follow a port with a name');
      if (!isPortName(number)) {
        bad(
          `${path}.port`,
          'is not a port name: at most 15 lower-case letters, digits and single "-", with a letter; a number goes without quotes',
        );
      }
      return { kind: 'named', protocol, name: number };
    }
    if (!isPortNumber(number)) bad(`${path}.port`, 'must be a number from 1 to 65535 or the name of a port');
    if (!present(endPort)) return { kind: 'range', protocol, first: number as number, last: number as number };
    if (!isPortNumber(endPort)) bad(`${path}.endPort`, 'must be a number from 1 to 65535');
    else if (isPortNumber(number) && endPort < number) bad(`${path}.endPort`, `must not be below port, ${number}`);
    return { kind: 'range', protocol, first: number as number, last: endPort as number };
  }

  /** policyTypes, with its default: Ingress always, Egress when there are egress rules. */
  function isolation(spec: Record<string, unknown>): NetworkPolicyRow['isolates'] {
    const types = spec.policyTypes;
    if (present(types) && !Array.isArray(types)) {
      bad('spec.policyTypes', 'must be a list of Ingress and Egress');
      return { ingress: true, egress: true };
    }
    const named = (types ?? []) as unknown[];
    const hasEgress = Array.isArray(spec.egress) ? spec.egress.length > 0 : present(spec.egress);
    if (named.length === 0) return { ingress: true, egress: hasEgress };
    const unknown = named.some((type) => type !== 'Ingress' && type !== 'Egress');
    if (unknown) bad('spec.policyTypes', 'may hold Ingress and Egress only');
    return { ingress: unknown || named.includes('Ingress'), egress: unknown || named.includes('Egress') };
  }

  function staged(metadata: Record<string, unknown>): boolean {
    const annotations = metadata.annotations;
    const value =
      typeof annotations === 'object' && annotations !== null
        ? (annotations as Record<string, unknown>)[enforcementAnnotation]
        : undefined;
    if (value === undefined || value === 'enforced') return false;
    if (value === 'staged') return true;
    bad(`metadata.annotations["${enforcementAnnotation}"]`, `must be staged or enforced, not ${JSON.stringify(value)}`);
    return false;
  }

  return { problems, bad, object, list, selector, rule, isolation, staged };
}

function present(value: unknown): boolean {
  return value !== undefined && value !== null;
}

function isName(value: unknown): value is string {
  return typeof value === 'string' && /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/.test(value);
}

function isPortNumber(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 1 && (value as number) <= 65_535;
}

/** RFC 6335: at least one letter, no two dashes in a row, none at the ends. */
function isPortName(name: string): boolean {
  return name.length <= 15 && /^[a-z0-9]+(-[a-z0-9]+)*$/.test(name) && /[a-z]/.test(name);
}
