// Everything that is wrong or odd with the policies of some files.
import { nearestName } from '../../../core/nearest-name.ts';
import { policyName } from '../../../core/rows.ts';
import { type OfflinePolicy, offlineModel } from '../manifests/offline-model.ts';
import { type Manifest, type NamedText, readManifests } from '../manifests/read-manifests.ts';
import { selectorPods } from '../manifests/selector-pods.ts';
import { policyKinds } from '../parse-policy.ts';
import { type Finding, findingAt, findingKinds, sortFindings } from './findings.ts';
import { lintCluster } from './lint-cluster.ts';
import { rulePath } from './rule-path.ts';
import { shadowedRules } from './shadowed.ts';

/** What came of it. */
export interface Validation {
  readonly findings: readonly Finding[];
  /** How many policies there are. */
  readonly policies: number;
  readonly files: number;
}

/** Checks the policies of `files`; `cluster` are pods and so on that are only looked at. */
export function validatePolicies(files: readonly NamedText[], cluster: readonly Manifest[] = []): Validation {
  const { manifests, unread } = readManifests(files);
  const findings: Finding[] = unread.map(({ file, line, column, message }) => {
    const { severity, hint } = findingKinds.YAML_INVALID;
    return { file, line, column, severity, code: 'YAML_INVALID', message, hint };
  });
  const checking = new Set(manifests);
  const keyOf = ({ kind, namespace, name }: Manifest): string => `${kind}/${namespace}/${name}`;
  const own = new Set(manifests.map(keyOf));
  const all = [...cluster.filter((each) => !own.has(keyOf(each))), ...manifests];
  // Nearly every policy speaks of the pods that answer questions about names, and nearly nobody gives their manifests.
  const options = { namespaces: ['kube-system'] };
  const known = offlineModel(all, options);
  const madeUp = known.pods.length === 0;
  const offline = madeUp
    ? offlineModel(all, { ...options, pods: selectorPods(known.model.policies, known.model.namespaces) })
    : known;
  const checked = offline.policies.filter(({ manifest }) => checking.has(manifest));
  findings.push(...manifests.flatMap(kindFinding), ...checked.flatMap(ownFindings), ...twice(checked));
  findings.push(...shadowFindings(checked, offline.model.policies));
  findings.push(...lintCluster({ ...offline, policies: checked }, { madeUp, whole: cluster.length > 0 }));
  return { findings: sortFindings(findings), policies: checked.length, files: files.length };
}

/** A kind that is nearly one of ours is a slip; others are none of our business. */
function kindFinding(manifest: Manifest): Finding[] {
  const { kind } = manifest;
  if (kind === '' || policyKinds.includes(kind as never)) return [];
  const near = nearestName(kind, policyKinds);
  if (near === undefined || kind.length < 10) return [];
  return [findingAt(manifest, 'KIND_UNKNOWN', 'kind', `${kind} is no kind of policy`, `did you mean ${near}?`)];
}

function ownFindings({ manifest, problems, row, rows }: OfflinePolicy): Finding[] {
  return [
    ...problems.map((problem) => findingAt(manifest, 'POLICY_INVALID', problem, problem)),
    ...(row?.unenforced ?? []).map((path) =>
      findingAt(manifest, 'NOT_ENFORCED_YET', path, `${path} is not enforced yet`),
    ),
    ...[...new Set([...(row?.remarks ?? []), ...rows.flatMap((each) => each.remarks ?? [])])].map((remark) =>
      findingAt(manifest, 'NOT_AS_IT_SEEMS', remark, remark),
    ),
  ];
}

function twice(policies: readonly OfflinePolicy[]): Finding[] {
  const first = new Map<string, OfflinePolicy>();
  return policies.flatMap((policy) => {
    const key = policy.row?.key;
    if (key === undefined) return [];
    const before = first.get(key);
    if (before === undefined) {
      first.set(key, policy);
      return [];
    }
    const { file } = before.manifest;
    const { line } = before.manifest.place('metadata.name');
    return [
      findingAt(
        policy.manifest,
        'POLICY_TWICE',
        'metadata.name',
        `${policy.kind} ${policyName(policy.row!)} is in ${file}:${line} already`,
      ),
    ];
  });
}

function shadowFindings(checked: readonly OfflinePolicy[], rows: Parameters<typeof shadowedRules>[0]): Finding[] {
  const policyOf = new Map(checked.flatMap((policy) => policy.rows.map((row) => [row, policy] as const)));
  return shadowedRules(rows).flatMap(({ policy: row, rule, by }) => {
    const policy = policyOf.get(row);
    if (policy === undefined) return [];
    const path = rulePath(policy, row, rule);
    return [findingAt(policy.manifest, 'RULE_SHADOWED', path, `${path} never decides: ${by} does before it`)];
  });
}
