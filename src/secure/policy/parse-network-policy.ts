// Reads a NetworkPolicy (networking.k8s.io/v1) as the API server would, and says exactly what is wrong with one that
// cannot be read. Such a policy fails closed: it isolates whatever its selector may select and allows nothing.
import { ignoredLabelKeys } from '../../core/identity.ts';
import { cidrContains, formatCidr } from '../../core/ip.ts';
import { everything } from '../../core/labels.ts';
import {
  type PolicyPeer,
  type PolicyPort,
  type PolicyRow,
  type PolicyRule,
  type PortProtocol,
  protocolNumbers,
  type WrittenPolicy,
} from '../../core/rows.ts';
import {
  createPolicyReader,
  type Fields,
  inNamespace,
  inNamespaces,
  isPortName,
  isPortNumber,
  type ParsedPolicy,
  type PolicyReader,
  present,
  problemText,
} from './policy-reader.ts';

/** Parses an API object. `ignoredLabels` are the label keys that identities leave out, which selectors cannot use. */
export function parseNetworkPolicy(given: unknown, ignoredLabels = ignoredLabelKeys): ParsedPolicy {
  const reader = createPolicyReader('NetworkPolicy', ignoredLabels);
  const { object, list, problems } = reader;
  const opened = reader.open(given, { apiVersion: 'networking.k8s.io/v1', namespaced: true });
  if (opened === undefined) return { problems };
  const { policy, head, enforcement } = opened;
  const spec = object(policy.spec ?? {}, 'spec', ['podSelector', 'ingress', 'egress', 'policyTypes']);
  const selected = reader.podSelector(spec.podSelector ?? {}, 'spec.podSelector');
  const rules = createRuleReader(reader, head.namespace);
  const ingress = list(spec.ingress, 'spec.ingress').map((rule, i) => rules.rule(rule, i, 'ingress', 'from'));
  const egress = list(spec.egress, 'spec.egress').map((rule, i) => rules.rule(rule, i, 'egress', 'to'));
  const isolates = isolation(reader, spec);

  const broken = problems.length > 0;
  const written: WrittenPolicy = {
    ...head,
    tier: 'normal',
    priority: 0,
    subject: { kind: 'endpoints', selector: inNamespace(selected, head.namespace) },
    isolates,
    ingress: broken || !isolates.ingress ? [] : ingress,
    egress: broken || !isolates.egress ? [] : egress,
  };
  const row = {
    ...head,
    enforcement,
    specs: [written],
    unenforced: [],
    ...(broken && { error: problemText(problems) }),
  };
  return { row, problems };
}

function createRuleReader(reader: PolicyReader, namespace: string) {
  const { object, list, bad } = reader;

  function rule(given: unknown, index: number, direction: 'ingress' | 'egress', peersField: 'from' | 'to'): PolicyRule {
    const path = `spec.${direction}[${index}]`;
    const fields = object(given, path, [peersField, 'ports']);
    const peersPath = `${path}.${peersField}`;
    const peers = list(fields[peersField], peersPath).map((entry, i) => peer(entry, `${peersPath}[${i}]`));
    const ports = list(fields.ports, `${path}.ports`).map((entry, i) => port(entry, `${path}.ports[${i}]`));
    // Here an empty list and none at all are the same: anybody, anything.
    return {
      index,
      list: direction,
      action: 'allow',
      ...(peers.length > 0 && { peers }),
      ...(ports.length > 0 && { ports }),
    };
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
    const pods = present(podSelector) ? reader.podSelector(podSelector, `${path}.podSelector`) : everything;
    const selector = present(namespaceSelector)
      ? inNamespaces(pods, reader.plainSelector(namespaceSelector, `${path}.namespaceSelector`))
      : inNamespace(pods, namespace);
    return { kind: 'endpoints', selector };
  }

  function block(given: unknown, path: string): PolicyPeer {
    const fields = object(given, path, ['cidr', 'except']);
    const cidr = reader.cidr(fields.cidr, `${path}.cidr`);
    const except = list(fields.except, `${path}.except`).flatMap((text, i) => {
      const at = `${path}.except[${i}]`;
      const inner = reader.cidr(text, at);
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
      reach: 'any',
    };
  }

  function port(given: unknown, path: string): PolicyPort {
    const fields = object(given, path, ['protocol', 'port', 'endPort']);
    const name = (fields.protocol ?? 'TCP') as PortProtocol;
    if (name !== 'TCP' && name !== 'UDP' && name !== 'SCTP') {
      bad(`${path}.protocol`, 'must be TCP, UDP or SCTP');
    }
    const protocol = protocolNumbers[name];
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
      return { kind: 'named', protocol: name, name: number };
    }
    if (!isPortNumber(number)) bad(`${path}.port`, 'must be a number from 1 to 65535 or the name of a port');
    if (!present(endPort)) return { kind: 'range', protocol, first: number as number, last: number as number };
    if (!isPortNumber(endPort)) bad(`${path}.endPort`, 'must be a number from 1 to 65535');
    else if (isPortNumber(number) && endPort < number) bad(`${path}.endPort`, `must not be below port, ${number}`);
    return { kind: 'range', protocol, first: number as number, last: endPort as number };
  }

  return { rule };
}

/** policyTypes, with its default: Ingress always, Egress when there are egress rules. */
function isolation({ bad }: PolicyReader, spec: Fields): PolicyRow['isolates'] {
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
