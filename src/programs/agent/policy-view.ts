// Policy as people ask about it: what a policy does on this node, and what holds for one pod and by which rule.
import { selectorMatches } from '../../core/labels.ts';
import type { ClassRow, PolicyPortRow, RuleOrigin } from '../../core/rows.ts';
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

/** All policies, with the local pods that each selects and the compiled rows that name it. */
export function policiesOf(agent: Agent) {
  const { compiler, endpoints, sources } = agent;
  const rowsOf = new Map<string, number>();
  for (const port of compiler.ports()) {
    const rules = compiler.cookie(port.cookie)?.rules ?? [];
    for (const key of new Set(rules.map((rule) => `${rule.namespace}/${rule.name}`)))
      rowsOf.set(key, (rowsOf.get(key) ?? 0) + 1);
  }
  const pods = [...endpoints.rows()];
  return [...sources.policies.rows()].map((policy) => ({
    kind: 'NetworkPolicy',
    ...policy,
    pods: pods
      .filter((pod) => pod.namespace === policy.namespace && selectorMatches(policy.podSelector, pod.labels))
      .map((pod) => `${pod.namespace}/${pod.pod}`),
    rows: rowsOf.get(policy.key) ?? 0,
  }));
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
