// The policies behind a verdict as flows name them: one entry per policy, with the rules that matched among its labels.
import { create } from '@bufbuild/protobuf';
import { type Policy, PolicySchema } from '../../../proto/gen/flow/flow_pb.js';
import type { CookieRow, RuleOrigin } from '../../core/rows.ts';

const remembered = new WeakMap<CookieRow, Policy[]>();

/** The label that names a rule, such as `weir:rule=ingress[0]`: its place under spec.ingress or spec.egress. */
export const ruleLabel = 'weir:rule=';

/** The policies of a verdict. Isolation has no rule label: no rule of these policies matched. */
export function policiesOf(row: CookieRow | undefined): Policy[] {
  if (row === undefined) return [];
  const known = remembered.get(row);
  if (known !== undefined) return known;
  const byPolicy = Map.groupBy(row.rules, (rule) => `${rule.kind}/${rule.namespace}/${rule.name}`);
  const policies = [...byPolicy.values()].map((rules) => {
    const { kind, namespace, name } = rules[0]!;
    return create(PolicySchema, { kind, namespace, name, labels: labelsOf(rules) });
  });
  remembered.set(row, policies);
  return policies;
}

function labelsOf(rules: readonly RuleOrigin[]): string[] {
  const { kind, namespace, name, uid } = rules[0]!;
  return [
    `k8s:io.cilium.k8s.policy.derived-from=${kind}`,
    `k8s:io.cilium.k8s.policy.name=${name}`,
    `k8s:io.cilium.k8s.policy.namespace=${namespace}`,
    ...(uid === undefined ? [] : [`k8s:io.cilium.k8s.policy.uid=${uid}`]),
    ...rules.filter((rule) => rule.ruleIndex >= 0).map((rule) => `${ruleLabel}${rule.direction}[${rule.ruleIndex}]`),
  ];
}
