// What a policy would do to connections that were seen: each judged without it and with it, at the ends that the node
// which saw it judges.
import { parseAddress } from '../../core/ip.ts';
import type {
  AddressRow,
  CidrGroupRow,
  NodeRow,
  PolicyObjectRow,
  PolicyRow,
  PolicyServiceRow,
} from '../../core/rows.ts';
import { verdictText } from './diff/diff-report.ts';
import { evaluateParties, type Party, type PolicyModel, partyOf, selectsSubject, type Verdict } from './evaluate.ts';
import { serviceText } from './explain.ts';
import type { PolicyContext } from './resolve-policy.ts';

/** What policy sees on a node, as the agent's API tells it. */
export interface NodePolicyModel {
  readonly node: string;
  readonly model: PolicyModel;
  readonly clusterStaged: boolean;
  readonly nodes: readonly NodeRow[];
  readonly cidrGroups: readonly CidrGroupRow[];
  /** Empty where no policy of the cluster names services. */
  readonly services: readonly PolicyServiceRow[];
  readonly objects: readonly PolicyObjectRow[];
}

/** The first packet of a connection that a node saw. */
export interface SeenConnection {
  readonly node: string;
  readonly source: string;
  readonly sourcePort: number;
  readonly destination: string;
  readonly protocol: number;
  readonly port: number;
  readonly timeMs: number;
}

/** Connections that the policy changes, alike in their ends and port. */
export interface ImpactRow {
  readonly effect: 'cut off' | 'let in';
  readonly from: string;
  readonly to: string;
  readonly port: string;
  readonly connections: number;
  readonly first: string;
  readonly last: string;
  /** Why it is as it is with the policy, and how it is without. */
  readonly withIt: string;
  readonly withoutIt: string;
}

/** What came of it. */
export interface Impact {
  /** Connections that were looked at, and those that the policy has a say in but does not change. */
  readonly connections: number;
  readonly changed: number;
  readonly rows: readonly ImpactRow[];
}

/** The context in which a policy from a file is resolved on a node. */
export function contextOfNode({
  node,
  model,
  nodes,
  cidrGroups,
  services,
  clusterStaged,
}: NodePolicyModel): PolicyContext {
  const staged = new Map(model.namespaces.map((row) => [row.name, row.staged]));
  return {
    clusterStaged,
    namespaceStaged: (name) => staged.get(name),
    nodeLabels: nodes.find((row) => row.name === node)?.labels,
    nodes: () => nodes,
    cidrGroups: () => cidrGroups,
    services: () => services,
  };
}

/**
 * Judges connections with and without a policy. `without` and `withIt` make of the policies of a node those to compare;
 * a connection that two nodes saw counts once.
 */
export function policyImpact(
  nodes: readonly NodePolicyModel[],
  seen: readonly SeenConnection[],
  sides: {
    readonly without: (node: NodePolicyModel) => readonly PolicyRow[];
    readonly withIt: (node: NodePolicyModel) => readonly PolicyRow[];
  },
): Impact {
  const judges = new Map(nodes.map((node) => [node.node, createJudge(node, sides.without(node), sides.withIt(node))]));
  const counted = new Set<string>();
  const looked = new Set<string>();
  const rows = new Map<string, ImpactRow & { firstMs: number; lastMs: number; connections: number }>();
  for (const connection of seen) {
    const judge = judges.get(connection.node);
    if (judge === undefined) continue;
    const { source, sourcePort, destination, protocol, port, timeMs } = connection;
    const tuple = `${source} ${sourcePort} ${destination} ${protocol} ${port}`;
    looked.add(tuple);
    const change = judge(connection);
    if (change === undefined || counted.has(tuple)) continue;
    counted.add(tuple);
    const { effect, from, to, withIt, withoutIt } = change;
    const key = [effect, from, to, protocol, port, withIt].join(' ');
    const before = rows.get(key);
    const firstMs = Math.min(timeMs, before?.firstMs ?? timeMs);
    const lastMs = Math.max(timeMs, before?.lastMs ?? timeMs);
    rows.set(key, {
      effect,
      from,
      to,
      port: serviceText({ protocol, port }),
      connections: (before?.connections ?? 0) + 1,
      first: new Date(firstMs).toISOString(),
      last: new Date(lastMs).toISOString(),
      withIt,
      withoutIt,
      firstMs,
      lastMs,
    });
  }
  const sorted = [...rows.values()].sort(
    (a, b) => (a.effect === b.effect ? 0 : a.effect < b.effect ? -1 : 1) || b.connections - a.connections,
  );
  return {
    connections: looked.size,
    changed: counted.size,
    rows: sorted.map(({ firstMs: _, lastMs: __, ...row }) => row),
  };
}

type Change = Pick<ImpactRow, 'effect' | 'from' | 'to' | 'withIt' | 'withoutIt'>;

/** Judges connections of one node; equal ones once. */
function createJudge(node: NodePolicyModel, without: readonly PolicyRow[], withIt: readonly PolicyRow[]) {
  const { model } = node;
  const rowOf = new Map(model.addresses.map((row) => [row.address, row]));
  const parties = new Map<string, { party: Party; row: AddressRow | undefined } | undefined>();
  const party = (address: string) => {
    if (!parties.has(address)) {
      const row = rowOf.get(address);
      const own = { ...model, addresses: row === undefined ? [] : [row] };
      parties.set(address, parseAddress(address).ok ? { party: partyOf(own, address), row } : undefined);
    }
    return parties.get(address);
  };
  const selecting = [new Map<string, readonly PolicyRow[]>(), new Map<string, readonly PolicyRow[]>()];
  const policiesOf = (side: 0 | 1, address: string, who: Party): readonly PolicyRow[] => {
    const known = selecting[side]!.get(address);
    if (known !== undefined) return known;
    const found = (side === 0 ? without : withIt).filter((policy) => selectsSubject(model, policy, who));
    selecting[side]!.set(address, found);
    return found;
  };
  const memo = new Map<string, Change | undefined>();

  function judge({ source, destination, protocol, port }: SeenConnection): Change | undefined {
    const [from, to] = [party(source), party(destination)];
    if (from === undefined || to === undefined) return undefined;
    const open: Verdict = { allowed: true, decidedBy: [], isolatedBy: [], stagedAllowed: true };
    const verdicts = ([0, 1] as const).map((side) => {
      const policies = [
        ...new Set([...policiesOf(side, source, from.party), ...policiesOf(side, destination, to.party)]),
      ];
      const both = evaluateParties({ ...model, policies }, from.party, to.party, { protocol, port });
      // A node judges what leaves and what reaches its own pods and itself, and nobody else.
      return { egress: isHere(from.row) ? both.egress : open, ingress: isHere(to.row) ? both.ingress : open };
    });
    const allowed = verdicts.map(({ egress, ingress }) => egress.allowed && ingress.allowed);
    if (allowed[0] === allowed[1]) return undefined;
    const [off, on] = verdicts.map(({ egress, ingress }) => verdictText(egress, ingress));
    return {
      effect: allowed[0] ? 'cut off' : 'let in',
      from: nameOf(source, from.row),
      to: nameOf(destination, to.row),
      withIt: on!,
      withoutIt: off!,
    };
  }

  return (connection: SeenConnection): Change | undefined => {
    const { source, destination, protocol, port } = connection;
    const key = `${source} ${destination} ${protocol} ${port}`;
    if (!memo.has(key)) memo.set(key, judge(connection));
    return memo.get(key);
  };
}

function isHere(row: AddressRow | undefined): boolean {
  return row !== undefined && (row.endpointId > 0 || row.kind === 'host');
}

function nameOf(address: string, row: AddressRow | undefined): string {
  if (row?.pod !== undefined) return `${row.namespace}/${row.workload?.name ?? row.pod}`;
  if (row === undefined) return address;
  return `${row.kind}${row.node === undefined ? '' : ` ${row.node}`}`;
}
