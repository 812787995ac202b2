// Pods made up from the selectors of policies, for sets of policies without a cluster: for each selector one pod that it
// selects, and in each namespace one pod that has no labels.
import { metaLabels, namespaceLabelKey } from '../../../core/identity.ts';
import { type LabelSelector, selectorKey, selectorMatches } from '../../../core/labels.ts';
import type { NamespaceRow, PolicyRow } from '../../../core/rows.ts';
import type { OfflinePod } from './offline-pods.ts';

/** The pods, each set of labels once. Port names have no number here. */
export function selectorPods(policies: readonly PolicyRow[], namespaces: readonly NamespaceRow[]): OfflinePod[] {
  const pods = new Map<string, OfflinePod>();
  const seen = new Set<string>();
  const add = (namespace: string, labels: Record<string, string>, serviceAccount = 'default'): void => {
    const text = Object.entries(labels).map(([key, value]) => `${key}=${value}`);
    const name = text.length === 0 ? '(any other pod)' : text.join(',');
    const key = `${namespace}/${name}/${serviceAccount}`;
    const workload = { kind: 'Pod', name };
    if (!pods.has(key))
      pods.set(key, { namespace, name, labels, serviceAccount, namedPorts: [], addresses: [], workload });
  };
  const addFor = (selector: LabelSelector, home: string): void => {
    const key = `${home} ${selectorKey(selector)}`;
    if (seen.has(key)) return;
    seen.add(key);
    const wanted: Record<string, string> = {};
    for (const { key: label, operator, values } of selector.matchExpressions) {
      if (operator === 'In') wanted[label] = values[0]!;
      else if (operator === 'Exists') wanted[label] = 'any';
    }
    Object.assign(wanted, selector.matchLabels);
    const {
      [metaLabels.namespace]: named,
      [metaLabels.serviceAccount]: account,
      [metaLabels.cluster]: _,
      ...rest
    } = wanted;
    const own = Object.fromEntries(Object.entries(rest).filter(([label]) => namespaceLabelKey(label) === undefined));
    const asked = Object.entries(rest).flatMap(([label, value]) => {
      const ofNamespace = namespaceLabelKey(label);
      return ofNamespace === undefined ? [] : [[ofNamespace, value] as const];
    });
    const matching = { matchLabels: Object.fromEntries(asked), matchExpressions: [] };
    const homes =
      asked.length > 0
        ? namespaces.filter((row) => selectorMatches(matching, row.labels)).map((row) => row.name)
        : [named === undefined || named === 'any' ? home : named];
    for (const each of homes) if (each !== '') add(each, own, account);
  };
  for (const policy of policies) {
    const home = policy.namespace || namespaces[0]?.name || 'default';
    if (policy.subject.kind === 'endpoints') addFor(policy.subject.selector, home);
    for (const { peers } of [...policy.ingress, ...policy.egress]) {
      for (const peer of peers ?? []) if (peer.kind === 'endpoints') addFor(peer.selector, home);
    }
  }
  for (const { name } of namespaces) add(name, {});
  return [...pods.values()];
}

/** The namespaces that selectors ask for by name. */
export function selectorNamespaces(policies: readonly PolicyRow[]): string[] {
  const names = new Set<string>();
  const read = ({ matchLabels, matchExpressions }: LabelSelector): void => {
    const keys = [metaLabels.namespace, 'io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name'];
    for (const key of keys) {
      if (matchLabels[key] !== undefined) names.add(matchLabels[key]);
      for (const each of matchExpressions)
        if (each.key === key && each.operator === 'In') for (const value of each.values) names.add(value);
    }
  };
  for (const policy of policies) {
    if (policy.subject.kind === 'endpoints') read(policy.subject.selector);
    for (const { peers } of [...policy.ingress, ...policy.egress]) {
      for (const peer of peers ?? []) if (peer.kind === 'endpoints') read(peer.selector);
    }
  }
  return [...names];
}
