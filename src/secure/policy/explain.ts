// Answers "why": who decided about a connection, which rules almost matched and what they lacked, and the smallest
// change of a policy that would turn the verdict. Says what evaluate() does, in words.
import { metaLabels, namespaceLabelKey, reservedIdentities, reservedName } from '../../core/identity.ts';
import { cidrContains, formatAddress, parseCidr } from '../../core/ip.ts';
import { type LabelSelector, ownValue, type Requirement } from '../../core/labels.ts';
import {
  type Direction,
  type PolicyPeer,
  type PolicyPort,
  type PolicyRow,
  type PolicyRule,
  policyName,
  type RuleOrigin,
  rulePlace,
} from '../../core/rows.ts';
import { originOf } from './compiled-rule.ts';
import {
  evaluateParties,
  matchesPeers,
  matchesPorts,
  type Party,
  type PolicyModel,
  type Service,
  selectsSubject,
  type Verdict,
} from './evaluate.ts';

/** What made a verdict. */
export type Because =
  | 'a rule'
  | 'the default deny'
  | 'nobody isolates it'
  | 'a node reaches its own pods'
  | 'its labels are not known yet'
  | 'policy does not judge this end';

/** A rule that did not match, and what it lacked. */
export interface NearMiss {
  readonly rule: RuleOrigin;
  /** Which of its conditions failed, in words. */
  readonly lacks: readonly string[];
}

/** The verdict of one end, explained. */
export interface EndExplanation extends Verdict {
  readonly because: Because;
  /** Rules about this end that match but for one condition, those of the wanted action first. */
  readonly almost: readonly NearMiss[];
  /** The smallest change that would turn the verdict, in words; absent where policy has no say. */
  readonly change?: string;
}

/** Both ends. */
export interface Explanation {
  readonly allowed: boolean;
  readonly stagedAllowed: boolean;
  readonly egress: EndExplanation;
  readonly ingress: EndExplanation;
}

const maxNearMisses = 10;

/** Explains a connection between two ends. `nameOf` gives ends their names in the answer. */
export function explain(
  model: PolicyModel,
  source: Party,
  destination: Party,
  service: Service,
  nameOf: (party: Party) => string,
): Explanation {
  const verdicts = evaluateParties(model, source, destination, service);
  const end = (direction: Direction): EndExplanation => {
    const [subject, peer] = direction === 'egress' ? [source, destination] : [destination, source];
    return explainEnd(model, direction, verdicts[direction], { subject, peer, destination, service, nameOf });
  };
  const egress = end('egress');
  const ingress = end('ingress');
  return {
    allowed: egress.allowed && ingress.allowed,
    stagedAllowed: egress.stagedAllowed && ingress.stagedAllowed,
    egress,
    ingress,
  };
}

interface Ends {
  readonly subject: Party;
  readonly peer: Party;
  readonly destination: Party;
  readonly service: Service;
  readonly nameOf: (party: Party) => string;
}

function explainEnd(model: PolicyModel, direction: Direction, verdict: Verdict, ends: Ends): EndExplanation {
  const because = becauseOf(direction, verdict, ends);
  if (because === 'policy does not judge this end' || because === 'its labels are not known yet') {
    return { ...verdict, because, almost: [] };
  }
  const policies = model.policies.filter((policy) => selectsSubject(model, policy, ends.subject));
  const turning = verdict.allowed ? 'deny' : 'allow';
  const almost = policies
    .flatMap((policy) => policy[direction].map((rule) => ({ policy, rule })))
    .flatMap(({ policy, rule }) => nearMiss(model, direction, policy, rule, ends) ?? [])
    .sort((a, b) => Number(b.action === turning) - Number(a.action === turning));
  const change = changeOf(direction, verdict, almost, ends);
  return {
    ...verdict,
    because,
    almost: almost.slice(0, maxNearMisses).map(({ rule, lacks }) => ({ rule, lacks })),
    ...(change !== undefined && { change }),
  };
}

function becauseOf(direction: Direction, verdict: Verdict, { subject, peer }: Ends): Because {
  if (verdict.decidedBy.length > 0) return 'a rule';
  if (!subject.isPod && subject.identity !== reservedIdentities.host) return 'policy does not judge this end';
  if (subject.isPod && subject.pod === undefined) return 'its labels are not known yet';
  if (!verdict.allowed) return 'the default deny';
  const fromNode = direction === 'ingress' && peer.identity === reservedIdentities.host;
  return fromNode && verdict.isolatedBy.length > 0 ? 'a node reaches its own pods' : 'nobody isolates it';
}

type Miss = NearMiss & { readonly action: string; readonly which: 'peers' | 'ports'; readonly policy: PolicyRow };

/** A rule that fails in its peers or in its ports, but not in both. */
function nearMiss(
  model: PolicyModel,
  direction: Direction,
  policy: PolicyRow,
  rule: PolicyRule,
  { peer, destination, service, nameOf }: Ends,
): Miss | undefined {
  const peers = matchesPeers(model, rule, peer);
  const ports = matchesPorts(rule, destination, service);
  if (peers === ports) return undefined;
  return {
    rule: originOf(policy, direction, rule),
    policy,
    action: rule.action,
    which: peers ? 'ports' : 'peers',
    lacks: [peers ? portsLack(rule, destination, service) : peersLack(model, rule, peer, nameOf(peer))],
  };
}

function portsLack(rule: PolicyRule, destination: Party, { protocol, port }: Service): string {
  const ports = rule.ports ?? [];
  if (ports.length === 0) return 'it names no port';
  const named = ports.filter((entry) => entry.kind === 'named');
  const missing = named.filter(({ name }) => !destination.namedPorts.some((own) => own.name === name));
  const listed = ports.map(portText).join(', ');
  const because = missing.length > 0 ? ` (the destination has no port named ${missing[0]!.name})` : '';
  return `${serviceText({ protocol, port })} is not in ${listed}${because}`;
}

function peersLack(model: PolicyModel, rule: PolicyRule, peer: Party, name: string): string {
  const peers = rule.peers ?? [];
  if (peers.length === 0) return 'it names no peer that there is';
  const reasons = peers.map((entry) => peerLacks(model, entry, peer));
  const shown = reasons.slice(0, 3).join('; nor: ');
  return `${name} is not among its peers: ${shown}${reasons.length > 3 ? `; nor ${reasons.length - 3} more` : ''}`;
}

function peerLacks(model: PolicyModel, entry: PolicyPeer, peer: Party): string {
  switch (entry.kind) {
    case 'reserved':
      return `it is not ${entry.identities.map((identity) => reservedName(identity) ?? identity).join(' or ')}`;
    case 'block': {
      const inside = (text: string): boolean => {
        const parsed = parseCidr(text);
        return parsed.ok && peer.address !== undefined && cidrContains(parsed.value, peer.address);
      };
      const address = peer.address === undefined ? 'it' : formatAddress(peer.address);
      if (!inside(entry.cidr)) return `${address} is not in ${entry.cidr}`;
      const except = entry.except.find(inside);
      if (except !== undefined) return `${address} is in its exception ${except}`;
      return entry.reach === 'outside'
        ? `${entry.cidr} stands for what is outside of the cluster, and ${address} is inside`
        : `${entry.cidr} does not stand for pods`;
    }
    case 'endpoints': {
      if (peer.pod === undefined) return `it is no pod, and the rule is about ${selectorText(entry.selector)}`;
      const namespace = model.namespaces.find((row) => row.name === peer.pod!.namespace);
      return selectorLacks(entry.selector, peer.pod.labels, namespace?.labels).join(' and ');
    }
  }
}

/** Which of a selector's conditions a pod does not meet. */
function selectorLacks(
  selector: LabelSelector,
  labels: Readonly<Record<string, string>>,
  namespaceLabels: Readonly<Record<string, string>> | undefined,
): string[] {
  const labelOf = (key: string): string | undefined => {
    const ofNamespace = namespaceLabelKey(key);
    return ofNamespace === undefined ? ownValue(labels, key) : ownValue(namespaceLabels ?? {}, ofNamespace);
  };
  const have = (key: string): string => {
    const value = labelOf(key);
    return value === undefined ? `has no ${plainKey(key)}` : `has ${plainKey(key)}=${value}`;
  };
  const requirements: Requirement[] = [
    ...Object.entries(selector.matchLabels).map(
      ([key, value]): Requirement => ({ key, operator: 'In', values: [value] }),
    ),
    ...selector.matchExpressions,
  ];
  return requirements.flatMap(({ key, operator, values }) => {
    const value = labelOf(key);
    const holds = {
      In: value !== undefined && values.includes(value),
      NotIn: value === undefined || !values.includes(value),
      Exists: value !== undefined,
      DoesNotExist: value === undefined,
    }[operator];
    if (holds) return [];
    if (operator === 'In') return [`it ${have(key)}, not ${values.join(' or ')}`];
    if (operator === 'Exists') return [`it ${have(key)}`];
    return [`it ${have(key)}, which the rule excludes`];
  });
}

/** What to change so that the verdict turns: of what is nearest, else of what there is. */
function changeOf(direction: Direction, verdict: Verdict, almost: readonly Miss[], ends: Ends): string | undefined {
  const { peer, service, nameOf } = ends;
  const port = serviceText(service);
  if (verdict.allowed) {
    const allowing = verdict.decidedBy.length > 0 ? verdict.decidedBy.map(ruleText).join(' and ') : undefined;
    if (allowing !== undefined && verdict.isolatedBy.length > 0)
      return `take ${nameOf(peer)} or ${port} out of ${allowing}`;
    const isolate = `isolate ${nameOf(ends.subject)} for ${direction}`;
    return `${isolate} by a policy that does not allow ${port} ${direction === 'egress' ? 'to' : 'from'} ${nameOf(peer)}`;
  }
  if (verdict.decidedBy.length > 0) {
    return `take ${nameOf(peer)} or ${port} out of ${verdict.decidedBy.map(ruleText).join(' and ')}`;
  }
  const nearest =
    almost.find((miss) => miss.action === 'allow' && miss.which === 'ports' && !miss.policy.staged) ??
    almost.find((miss) => miss.action === 'allow' && !miss.policy.staged);
  if (nearest !== undefined) {
    return nearest.which === 'ports'
      ? `add ${port} to the ports of ${ruleText(nearest.rule)}`
      : `add ${nameOf(peer)} to the peers of ${ruleText(nearest.rule)}`;
  }
  const [isolating] = verdict.isolatedBy;
  if (isolating === undefined) return undefined;
  const word = direction === 'egress' ? 'to' : 'from';
  return `add a rule to ${isolating.kind} ${policyName(isolating)} that allows ${port} ${word} ${nameOf(peer)}`;
}

/** A rule with its policy, such as `CiliumNetworkPolicy shop/cart egressDeny[0]`. */
export function ruleText(rule: RuleOrigin): string {
  const place = rulePlace(rule);
  return `${rule.kind} ${policyName(rule)}${place === undefined ? '' : ` ${place}`}`;
}

const protocolTexts: Readonly<Record<number, string>> = { 6: 'TCP', 17: 'UDP', 132: 'SCTP', 1: 'ICMP', 58: 'ICMPv6' };

/** Such as `8080/TCP`, `ICMP type 8` or `protocol 47`. */
export function serviceText({ protocol, port }: Service): string {
  const name = protocolTexts[protocol];
  if (name === undefined) return `protocol ${protocol}`;
  return protocol === 1 || protocol === 58 ? `${name} type ${port}` : `${port}/${name}`;
}

function portText(port: PolicyPort): string {
  if (port.kind === 'named') return `${port.name}/${port.protocol}`;
  if (port.kind === 'all') return `any ${protocolTexts[port.protocol] ?? `of protocol ${port.protocol}`}`;
  if (port.first === port.last) return serviceText({ protocol: port.protocol, port: port.first });
  return `${port.first}-${serviceText({ protocol: port.protocol, port: port.last })}`;
}

/** A selector in words, such as `pods with app=web, namespace=shop`. */
export function selectorText({ matchLabels, matchExpressions }: LabelSelector): string {
  const parts = [
    ...Object.entries(matchLabels).map(([key, value]) => `${plainKey(key)}=${value}`),
    ...matchExpressions.map(({ key, operator, values }) => `${plainKey(key)} ${operator} ${values.join(',')}`.trim()),
  ];
  return parts.length === 0 ? 'every pod' : `pods with ${parts.join(', ')}`;
}

/** The keys that Weir adds, as people call them. */
function plainKey(key: string): string {
  if (key === metaLabels.namespace) return 'namespace';
  if (key === metaLabels.serviceAccount) return 'service account';
  if (key === metaLabels.cluster) return 'cluster';
  const ofNamespace = namespaceLabelKey(key);
  return ofNamespace === undefined ? key : `the namespace's ${ofNamespace}`;
}
