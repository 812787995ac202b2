// Reads CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy (cilium.io/v2): what an absent list means and what an empty
// one, which parts of a rule go together, and what is not enforced yet. A policy that cannot be read fails closed: it
// isolates whom it may select, in both directions, allows nothing, and denies all where it has denials. Rules are in parse-cilium-rule.ts.
import { ignoredLabelKeys, metaLabels } from '../../core/identity.ts';
import { everything, type LabelSelector, selectorKeys } from '../../core/labels.ts';
import type { Direction, PolicyKind, PolicyRule, RuleList, WrittenPeer, WrittenPolicy } from '../../core/rows.ts';
import { type CiliumSelectors, createCiliumSelectors } from './cilium-selectors.ts';
import { parseCiliumRule } from './parse-cilium-rule.ts';
import { closeSpecDenying } from './policy-limits.ts';
import {
  createPolicyReader,
  type Fields,
  inNamespace,
  type ParsedPolicy,
  type PolicyHead,
  type PolicyReader,
  present,
  problemText,
} from './policy-reader.ts';

const specFields = [
  'description',
  'egress',
  'egressDeny',
  'enableDefaultDeny',
  'endpointSelector',
  'ingress',
  'ingressDeny',
  'labels',
  'log',
  'nodeSelector',
];
const lists: readonly RuleList[] = ['ingress', 'ingressDeny', 'egress', 'egressDeny'];
const maxLogLength = 32;

/** Parses an API object of either kind; which, its `kind` says. */
export function parseCiliumPolicy(given: unknown, ignoredLabels = ignoredLabelKeys): ParsedPolicy {
  const clusterwide = (given as Fields | null)?.kind === 'CiliumClusterwideNetworkPolicy';
  const kind: PolicyKind = clusterwide ? 'CiliumClusterwideNetworkPolicy' : 'CiliumNetworkPolicy';
  const reader = createPolicyReader(kind, ignoredLabels);
  const { list, bad, problems } = reader;
  const opened = reader.open(given, { apiVersion: 'cilium.io/v2', namespaced: !clusterwide, several: true });
  if (opened === undefined) return { problems };
  const { policy, head, enforcement } = opened;

  const givenSpecs: [unknown, string][] = [
    ...(present(policy.spec) ? [[policy.spec, 'spec'] as [unknown, string]] : []),
    ...list(policy.specs, 'specs').map((spec, i): [unknown, string] => [spec, `specs[${i}]`]),
  ];
  if (givenSpecs.length === 0) bad('spec', 'is missing, and there are no specs');
  const unenforced: string[] = [];
  const selectors = createCiliumSelectors(reader, head.namespace, ignoredLabels);
  const several = givenSpecs.length > 1;
  const specs = givenSpecs.map(([spec, path], i) =>
    specOf(reader, selectors, head, spec, path, several ? i : undefined, unenforced),
  );

  const broken = problems.length > 0;
  return {
    row: {
      ...head,
      enforcement,
      specs: broken ? specs.map((spec, i) => closed(spec, givenSpecs[i]!, problems)) : specs,
      unenforced: broken ? [] : unenforced,
      ...(!broken && reader.remarks.length > 0 && { remarks: reader.remarks }),
      ...(broken && { error: problemText(problems) }),
    },
    problems,
  };
}

/** A list of denials that cannot be read, or whose rules are not enforced, denies all the same once the policy is closed. */
function closed(
  spec: WrittenPolicy,
  [given, path]: readonly [unknown, string],
  problems: readonly string[],
): WrittenPolicy {
  const denies = (direction: Direction): boolean => {
    const denials = (given as Fields | null)?.[`${direction}Deny`];
    return present(denials) && !(Array.isArray(denials) && denials.length === 0);
  };
  const known = !problems.some((problem) => problem.startsWith(`${path}.ingressDeny`));
  return closeSpecDenying(spec, denies, known);
}

function specOf(
  reader: PolicyReader,
  selectors: CiliumSelectors,
  head: PolicyHead,
  given: unknown,
  path: string,
  number: number | undefined,
  unenforced: string[],
): WrittenPolicy {
  const { object, list, bad } = reader;
  const spec = object(given, path, specFields);
  const { endpointSelector, nodeSelector } = spec;
  if (present(endpointSelector) === present(nodeSelector)) {
    bad(path, 'must have one of endpointSelector and nodeSelector');
  }
  if (present(nodeSelector) && head.namespace !== '') {
    bad(`${path}.nodeSelector`, 'is for CiliumClusterwideNetworkPolicy only');
  }
  if (!lists.some((name) => present(spec[name]))) bad(path, `must have one of ${lists.join(', ')}`);

  const rules = (direction: Direction): PolicyRule<WrittenPeer>[] =>
    lists
      .filter((name) => name.startsWith(direction))
      .flatMap((name) =>
        list(spec[name], `${path}.${name}`).flatMap((rule, i) => {
          const at = `${path}.${name}[${i}]`;
          const read = parseCiliumRule(reader, selectors, rule, at, name);
          unenforced.push(...read.unenforced);
          if (present(nodeSelector) && read.layer7)
            bad(at, 'has rules of layer 7, which policies for nodes cannot have');
          return read.unenforced.length > 0 ? [] : [{ index: i, list: name, ...read.rule }];
        }),
      );
  const posture = object(spec.enableDefaultDeny ?? {}, `${path}.enableDefaultDeny`, ['ingress', 'egress']);
  const isolated = (direction: Direction): boolean =>
    reader.boolean(posture[direction], `${path}.enableDefaultDeny.${direction}`) ??
    // Whoever writes a rule for a direction isolates it; an empty list of rules does not.
    [spec[direction], spec[`${direction}Deny`]].some((rule) => Array.isArray(rule) && rule.length > 0);

  const node = present(nodeSelector);
  return {
    ...head,
    key: number === undefined || number === 0 ? head.key : `${head.key}#${number}`,
    ...(number !== undefined && { spec: number }),
    tier: 'normal',
    priority: 0,
    subject: node
      ? { kind: 'node' }
      : { kind: 'endpoints', selector: subjectSelector(reader, selectors, head, endpointSelector, path) },
    ...(node && { nodeSelector: reader.plainSelector(nodeSelector, `${path}.nodeSelector`) }),
    isolates: { ingress: isolated('ingress'), egress: isolated('egress') },
    ingress: rules('ingress'),
    egress: rules('egress'),
    ...logOf(reader, spec.log, path),
  };
}

/** A policy of a namespace selects in it only, whatever its selector says. */
function subjectSelector(
  reader: PolicyReader,
  selectors: CiliumSelectors,
  head: PolicyHead,
  given: unknown,
  path: string,
): LabelSelector {
  const selector = present(given) ? selectors.pods(given, `${path}.endpointSelector`) : everything;
  if (head.namespace === '') return selector;
  const named = Object.hasOwn(selector.matchLabels, metaLabels.namespace)
    ? selector.matchLabels[metaLabels.namespace]
    : undefined;
  if (named !== undefined && named !== head.namespace) {
    reader.bad(
      `${path}.endpointSelector`,
      `selects in the namespace ${named}; a policy selects in its own, ${head.namespace}`,
    );
  }
  return selectorKeys(selector).length === 0
    ? inNamespace(everything, head.namespace)
    : inNamespace(selector, head.namespace);
}

function logOf(reader: PolicyReader, given: unknown, path: string): { log?: string } {
  const { value } = reader.object(given ?? {}, `${path}.log`, ['value']);
  if (!present(value)) return {};
  const log = reader.text(value, `${path}.log.value`);
  if (log.length > maxLogLength) reader.bad(`${path}.log.value`, `is longer than ${maxLogLength} characters`);
  if (/\p{C}/u.test(log)) reader.bad(`${path}.log.value`, 'has characters that cannot be printed');
  return { log };
}
