// The policies behind a verdict as flows name them: one entry per policy, with the rules that matched among its labels.
import { type PolicyObjectRow, policyKey, type RuleOrigin, rulePlace } from '../../core/rows.ts';
import type { ReadTable } from '../../core/table.ts';
import type { FlowRules } from './flow-row.ts';

/** A policy of a verdict. */
export interface FlowPolicy {
  readonly kind: string;
  readonly namespace: string;
  readonly name: string;
  readonly labels: readonly string[];
  /** 0 when it is not known. */
  readonly revision: number;
}

/** The label that names a rule, such as `weir:rule=ingress[0]`: its place under the policy's spec. */
export const ruleLabel = 'weir:rule=';

/** The policies of a verdict. Isolation has no rule label: no rule of these policies matched. */
export function policiesOf(row: FlowRules): FlowPolicy[] {
  const byPolicy = Map.groupBy(row.rules, (rule) => policyKey(rule.kind, rule.namespace, rule.name));
  return [...byPolicy].map(([key, rules]) => {
    const { kind, namespace, name } = rules[0]!;
    const revision = row.revisions?.get(key) ?? 0;
    return { kind, namespace, name, labels: labelsOf(rules), revision };
  });
}

const noLogs: readonly string[] = [];

/** What the policies of both verdicts want their flows to carry, each once. */
export function logsOf(egress: FlowRules | undefined, ingress: FlowRules | undefined): readonly string[] {
  const speaks = (rules: FlowRules | undefined): boolean =>
    rules?.rules.some((rule) => rule.log !== undefined) ?? false;
  if (!speaks(egress) && !speaks(ingress)) return noLogs;
  const rules = [...(egress?.rules ?? []), ...(ingress?.rules ?? [])];
  return [...new Set(rules.flatMap((rule) => (rule.log === undefined || rule.log === '' ? [] : [rule.log])))];
}

function labelsOf(rules: readonly RuleOrigin[]): string[] {
  const { kind, namespace, name, uid } = rules[0]!;
  return [
    `k8s:io.cilium.k8s.policy.derived-from=${kind}`,
    `k8s:io.cilium.k8s.policy.name=${name}`,
    ...(namespace === '' ? [] : [`k8s:io.cilium.k8s.policy.namespace=${namespace}`]),
    ...(uid === undefined ? [] : [`k8s:io.cilium.k8s.policy.uid=${uid}`]),
    ...rules.map(rulePlace).flatMap((place) => (place === undefined ? [] : [`${ruleLabel}${place}`])),
  ];
}

const goneLimit = 1024;

/** Rules by cookie, with the revisions of their policies. */
export interface RevisedRules {
  find(cookie: number): FlowRules | undefined;
  close(): void;
}

/** Adds to rules the revision at which this agent last took each of their policies: that of its agent event. */
export function createRevisedRules(
  find: (cookie: number) => FlowRules | undefined,
  policies: ReadTable<PolicyObjectRow>,
): RevisedRules {
  const revisions = new Map<string, number>();
  for (const { key, revision } of policies.changesSince(0).changes) revisions.set(String(key), revision);
  const gone = new Set<string>();
  /** A row of rules is shared by all flows until a policy changes. */
  let revised = new WeakMap<FlowRules, FlowRules>();
  const close = policies.subscribe(({ changes, revision }) => {
    // What is gone keeps its number, for the events that still name it.
    for (const { key, after } of changes) {
      if (after !== undefined) revisions.set(String(key), revision);
      else gone.add(String(key));
    }
    for (const key of gone) {
      if (gone.size <= goneLimit) break;
      gone.delete(key);
      if (!policies.has(key)) revisions.delete(key);
    }
    if (changes.length > 0) revised = new WeakMap();
  });
  return {
    close,
    find(cookie) {
      const rules = find(cookie);
      if (rules === undefined) return undefined;
      const known = revised.get(rules);
      if (known !== undefined) return known;
      const keys = new Set(rules.rules.map((rule) => policyKey(rule.kind, rule.namespace, rule.name)));
      const own = new Map(
        [...keys].flatMap((key) => (revisions.has(key) ? [[key, revisions.get(key)!] as const] : [])),
      );
      const row: FlowRules = { ...rules, revisions: own };
      revised.set(rules, row);
      return row;
    },
  };
}
