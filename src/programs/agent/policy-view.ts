// Policy as people ask about it: what a policy does on this node, and what holds for one pod and by which rule.
import { type PodIdentity, podOfIdentity, selectsPod } from '../../core/identity.ts';
import { type ClassRow, type PolicyPortRow, type PolicyRow, policyKey, type RuleOrigin } from '../../core/rows.ts';
import type { Agent } from './agent.ts';

/** A policy with what it does here. */
export type PolicyView = ReturnType<typeof policiesOf>[number];

/** Who is on the other side of a verdict: class 0 is whoever no other row names. */
export interface PeerView {
  readonly class: number;
  readonly identity?: number;
  readonly labels?: readonly string[];
  /** The blocks of policies that contain it. */
  readonly prefixes?: readonly string[];
}

/** One verdict of an endpoint's policy and the rules that made it. */
export interface EffectiveRow {
  readonly direction: 'ingress' | 'egress';
  readonly peer: PeerView;
  readonly protocol: number;
  readonly port: number;
  readonly prefixBits: number;
  readonly allow: boolean;
  readonly stagedAllow: boolean;
  readonly cookie: number;
  readonly rules: readonly RuleOrigin[];
}

/** All policies, with the local endpoints that each selects and the compiled rows that name it. */
export function policiesOf(agent: Agent) {
  const { compiler, endpoints, policies, sources } = agent;
  const rowsOf = new Map<string, number>();
  for (const port of compiler.ports()) {
    const rules = compiler.cookie(port.cookie)?.rules ?? [];
    for (const key of new Set(rules.map((rule) => policyKey(rule.kind, rule.namespace, rule.name))))
      rowsOf.set(key, (rowsOf.get(key) ?? 0) + 1);
  }
  const pods = [...endpoints.rows()].flatMap((row) => {
    const labels = sources.identities.get(row.identity)?.labels;
    const pod = labels && podOfIdentity(labels);
    return pod === undefined ? [] : [{ name: `${row.namespace}/${row.pod}`, pod }];
  });
  const specs = Map.groupBy(policies.policies.rows(), (row) => policyKey(row.kind, row.namespace, row.name));
  const selects = (row: PolicyRow, pod: PodIdentity): boolean =>
    row.subject.kind === 'endpoints' &&
    (row.namespace === '' || row.namespace === pod.namespace) &&
    selectsPod(row.subject.selector, pod, sources.namespaces.get(pod.namespace)?.labels);
  return [...policies.objects.rows()].map((object) => {
    const rows = specs.get(object.key) ?? [];
    const { specs: written, ...rest } = object;
    const error = object.error ?? rows.find((row) => row.error !== undefined)?.error;
    return {
      ...rest,
      ...(error !== undefined && { error }),
      remarks: [...new Set([...(object.remarks ?? []), ...rows.flatMap((row) => row.remarks ?? [])])],
      tier: written[0]?.tier ?? 'normal',
      priority: written[0]?.priority ?? 0,
      staged: rows.some((row) => row.staged),
      isolates: {
        ingress: [...written, ...rows].some((spec) => spec.isolates.ingress),
        egress: [...written, ...rows].some((spec) => spec.isolates.egress),
      },
      pods: pods.filter(({ pod }) => rows.some((row) => selects(row, pod))).map(({ name }) => name),
      /** It is about this node itself. */
      node: rows.some((row) => row.subject.kind === 'node'),
      rows: rowsOf.get(object.key) ?? 0,
    };
  });
}

/** What the kernel does with an endpoint's connections, fallbacks last. */
export function effectivePolicy(
  agent: Agent,
  endpoint: { ipv4?: string; ipv6?: string },
  labelsOf: (identity: number) => readonly string[],
): EffectiveRow[] {
  const { compiler } = agent;
  const own = new Set<number>();
  for (const row of compiler.ipcache())
    if (row.address === endpoint.ipv4 || row.address === endpoint.ipv6) own.add(row.class);
  const classes = new Map<number, ClassRow>();
  for (const row of compiler.classes()) classes.set(row.class, row);
  const ports = Map.groupBy(compiler.ports(), (port: PolicyPortRow) => port.ruleset);
  const rows = new Map<string, EffectiveRow>();
  for (const { subject, direction, peer, ruleset } of compiler.peers()) {
    if (!own.has(subject)) continue;
    for (const { protocol, port, prefixBits, allow, stagedAllow, cookie } of ports.get(ruleset) ?? []) {
      const rules = compiler.cookie(cookie)?.rules ?? [];
      const row = {
        direction,
        peer: peerView(classes.get(peer), labelsOf),
        protocol,
        port,
        prefixBits,
        allow,
        stagedAllow,
        cookie,
        rules,
      };
      rows.set(`${direction} ${peer} ${protocol}/${port}/${prefixBits}`, row);
    }
  }
  const fallback = (row: EffectiveRow) => (row.peer.class === 0 ? 1 : 0);
  return [...rows.values()].sort(
    (a, b) =>
      b.direction.localeCompare(a.direction) ||
      fallback(a) - fallback(b) ||
      a.peer.class - b.peer.class ||
      a.port - b.port,
  );
}

function peerView(row: ClassRow | undefined, labelsOf: (identity: number) => readonly string[]): PeerView {
  if (row === undefined) return { class: 0 };
  return { class: row.class, identity: row.identity, labels: labelsOf(row.identity), prefixes: row.prefixes };
}
