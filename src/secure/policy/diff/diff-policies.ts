// Which connections change between two sets of policies, exactly. Only ends that a policy which differs selects can change
// their verdict; for each of them peers with the same rules are looked at once, and what the other end says is counted in.
import { deepEqual } from '../../../core/equal.ts';
import type { Direction, PolicyRow, PolicyRule } from '../../../core/rows.ts';
import type { PolicyModel } from '../evaluate.ts';
import { rankOf } from '../precedence.ts';
import {
  type Behaviour,
  type Behaviours,
  createBehaviours,
  type SidedPolicy,
  type SidedRule,
  type Sides,
  type Verdicts,
} from './behaviour.ts';
import { type Bulk, type EndList, endList } from './end-list.ts';
import { createEndSets, type EndSets } from './end-sets.ts';
import { type End, endsOf } from './ends.ts';
import { bordersOf, lastBefore, realParts, type Span } from './port-space.ts';

/** Connections that change alike: every one of `from` to every one of `to`. */
export interface ChangedGroup {
  readonly change: 'now denied' | 'now allowed';
  readonly from: EndList;
  readonly to: EndList;
  readonly spans: readonly Span[];
}

/** What changes. Ends are places in `ends`. */
export interface PolicyDiff {
  readonly ends: readonly End[];
  readonly groups: readonly ChangedGroup[];
  /** Pairs of ends with a change, by kind. A pair may be in both. */
  readonly nowDenied: number;
  readonly nowAllowed: number;
  /** Policies that were added, removed or changed. */
  readonly policies: readonly { readonly key: string; readonly how: 'added' | 'removed' | 'changed' }[];
  /** For explanations: the policies that select an end, before and after. */
  policiesOf(end: number): { readonly before: readonly PolicyRow[]; readonly after: readonly PolicyRow[] };
}

/** Settings. */
export interface DiffOptions {
  /** As if staged policies were enforced. Otherwise they do nothing. */
  readonly staged?: boolean;
}

const directions = ['egress', 'ingress'] as const;

/** Compares two models that differ in policies and namespaces only. */
export function diffPolicies(before: PolicyModel, after: PolicyModel, options: DiffOptions = {}): PolicyDiff {
  const inForce = (model: PolicyModel): PolicyModel => ({
    ...model,
    policies: options.staged ? model.policies : model.policies.filter((policy) => !policy.staged),
  });
  const models = [inForce(before), inForce(after)] as const;
  const ends = endsOf(models);
  const sameNamespaces = deepEqual(before.namespaces, after.namespaces);
  const sets = createEndSets(ends, before.namespaces);
  const setsOf = [sets, sameNamespaces ? sets : createEndSets(ends, after.namespaces)] as const;
  const { policies, selected, rowsOf, changed } = sided(models, setsOf, sameNamespaces);
  const differing = { egress: new Set<number>(), ingress: new Set<number>() };
  const policiesOf: SidedPolicy[][] = ends.map(() => []);
  for (const [i, policy] of policies.entries()) {
    for (const end of selected[i]!) policiesOf[end]!.push(policy);
    if (policy.sides === 3) continue;
    for (const direction of directions) {
      if (!policy.isolates[direction] && policy.rules[direction].length === 0) continue;
      for (const end of selected[i]!) differing[direction].add(end);
    }
  }
  const behaviours = createBehaviours(sets, policiesOf);
  const groups: Found[] = [];
  const counts = { 'now denied': 0, 'now allowed': 0 };
  const combine = createCombiner();
  for (const direction of directions) {
    if (differing[direction].size === 0) continue;
    const others = othersOf(ends, behaviours, direction === 'egress' ? 'ingress' : 'egress');
    for (const subject of differing[direction]) {
      const own = behaviours.of(subject, direction);
      for (const found of changesOf(subject, own, direction, others, combine)) {
        counts[found.change] += found.peers.count;
        groups.push(found);
      }
    }
  }
  return {
    ends,
    groups: merge(groups),
    nowDenied: counts['now denied'],
    nowAllowed: counts['now allowed'],
    policies: changed,
    policiesOf(end) {
      const rows = (side: number) =>
        policiesOf[end]!.filter((each) => each.sides & side).map((each) => rowsOf.get(each.id)!);
      return { before: rows(1), after: rows(2) };
    },
  };
}

/** Policies of both sides; one that is the same in both is there once. */
function sided(
  models: readonly [PolicyModel, PolicyModel],
  sets: readonly [EndSets, EndSets],
  sameNamespaces: boolean,
) {
  const policies: SidedPolicy[] = [];
  const selected: (readonly number[])[] = [];
  const rowsOf = new Map<number, PolicyRow>();
  const changed: { key: string; how: 'added' | 'removed' | 'changed' }[] = [];
  let rules = 0;
  const add = (row: PolicyRow, sides: Sides, index: EndSets): void => {
    const id = policies.length;
    const sidedRule = (rule: PolicyRule): SidedRule => ({
      id: ++rules,
      sides,
      tier: row.tier,
      action: rule.action,
      rank: row.tier === 'normal' ? '' : rankOf(row.priority, row.key, rule.index),
      peers: rule.peers && union(rule.peers.map((peer) => index.matching(peer))),
      ports: rule.ports,
      sparesOwnNode: rule.sparesOwnNode,
      named: (rule.ports ?? []).some((port) => port.kind === 'named'),
    });
    const { isolates } = row;
    policies.push({
      id,
      sides,
      isolates,
      rules: { ingress: row.ingress.map(sidedRule), egress: row.egress.map(sidedRule) },
    });
    selected.push(index.selectedBy(row));
    rowsOf.set(id, row);
  };
  const [before, after] = models.map((model) => new Map(model.policies.map((row) => [row.key, row])));
  for (const [key, row] of before!) {
    const other = after!.get(key);
    const same = other !== undefined && deepEqual(row, other);
    if (same && sameNamespaces) add(row, 3, sets[0]);
    else add(row, 1, sets[0]);
    if (!same) changed.push({ key, how: other === undefined ? 'removed' : 'changed' });
    if (other !== undefined && !(same && sameNamespaces)) add(other, 2, sets[1]);
  }
  for (const [key, row] of after!) {
    if (before!.has(key)) continue;
    add(row, 2, sets[1]);
    changed.push({ key, how: 'added' });
  }
  return { policies, selected, rowsOf, changed };
}

function union(lists: readonly (readonly number[])[]): readonly number[] {
  if (lists.length === 1) return lists[0]!;
  return [...new Set(lists.flat())].sort((a, b) => a - b);
}

/** What all ends say to those of whom their rules do not speak, and who speaks of whom. */
interface Others {
  readonly ends: readonly End[];
  readonly behaviours: Behaviours;
  readonly direction: Direction;
  /** Ends that judge alike and have the same families. */
  readonly classes: readonly {
    readonly verdicts: Verdicts;
    readonly families: number;
    readonly members: readonly number[];
  }[];
  readonly classOf: readonly number[];
  /** The ends whose rules speak of an end. */
  readonly speaking: ReadonlyMap<number, readonly number[]>;
}

function othersOf(ends: readonly End[], behaviours: Behaviours, direction: Direction): Others {
  const classes = new Map<string, { number: number; verdicts: Verdicts; families: number; members: number[] }>();
  const classOf: number[] = [];
  const speaking = new Map<number, number[]>();
  for (const [i, { families }] of ends.entries()) {
    const behaviour = behaviours.of(i, direction);
    const verdicts = behaviour.verdicts(0);
    const key = `${verdicts.id} ${families}`;
    const known = classes.get(key) ?? { number: classes.size, verdicts, families, members: [] };
    classes.set(key, known);
    known.members.push(i);
    classOf.push(known.number);
    for (const told of behaviour.told) {
      const list = speaking.get(told);
      if (list === undefined) speaking.set(told, [i]);
      else list.push(i);
    }
  }
  return { ends, behaviours, direction, classes: [...classes.values()], classOf, speaking };
}

interface Found {
  readonly change: ChangedGroup['change'];
  readonly spans: readonly Span[];
  readonly text: string;
  readonly subject: number;
  readonly direction: Direction;
  readonly reason: string;
  readonly peers: EndList;
}
type Change = Pick<Found, 'change' | 'spans' | 'text'>;

/** What changes for one end: with those of whom rules speak one by one, with all others class by class. */
function changesOf(
  subject: number,
  own: Behaviour,
  direction: Direction,
  { ends, behaviours, direction: opposite, classes, classOf, speaking }: Others,
  combine: ReturnType<typeof createCombiner>,
): Found[] {
  const { families } = ends[subject]!;
  const alike = new Map<string, { change: Change; reason: string; single: number[]; bulk: Bulk[] }>();
  const tell = (signature: number, theirs: Verdicts, add: (to: { single: number[]; bulk: Bulk[] }) => void): void => {
    for (const change of combine(own.verdicts(signature), theirs, direction)) {
      // What other ends say differs often and matters seldom: those for which it comes to the same are together.
      const key = `${signature} ${change.text}`;
      let entry = alike.get(key);
      if (entry === undefined) {
        entry = { change, reason: `${direction} ${own.id} ${signature}`, single: [], bulk: [] };
        alike.set(key, entry);
      }
      add(entry);
    }
  };
  const restDiffers = own.verdicts(0).differs;
  const looked = new Set(own.told);
  if (restDiffers) for (const peer of speaking.get(subject) ?? []) looked.add(peer);
  const without: number[][] = classes.map(() => []);
  for (const peer of looked) {
    if (restDiffers) without[classOf[peer]!]!.push(peer);
    const signature = own.signatureOf(peer);
    if (!own.verdicts(signature).differs || (families & ends[peer]!.families) === 0) continue;
    const theirs = behaviours.of(peer, opposite);
    tell(signature, theirs.verdicts(theirs.signatureOf(subject)), ({ single }) => single.push(peer));
  }
  for (const [i, each] of restDiffers ? classes.entries() : []) {
    if ((families & each.families) === 0 || each.members.length === without[i]!.length) continue;
    const part = { members: each.members, number: i, without: without[i]!.sort((a, b) => a - b) };
    tell(0, each.verdicts, ({ bulk }) => bulk.push(part));
  }
  return [...alike.values()].map(({ change, reason, single, bulk }) => {
    const peers = endList(
      single.sort((a, b) => a - b),
      bulk,
    );
    return { ...change, subject, direction, reason, peers };
  });
}

/** Where two verdicts together change. What changes at the source is told there, and not again at the destination. */
function createCombiner() {
  const memo = new Map<string, readonly Change[]>();
  return (own: Verdicts, theirs: Verdicts, direction: Direction): readonly Change[] => {
    const key = `${direction} ${own.id} ${theirs.id}`;
    const before = memo.get(key);
    if (before !== undefined) return before;
    const borders = bordersOf([...own.starts, ...theirs.starts].map((start): Span => [start, start - 1]));
    const spans: Record<ChangedGroup['change'], Span[]> = { 'now denied': [], 'now allowed': [] };
    let [i, j] = [0, 0];
    for (const [k, border] of borders.entries()) {
      while ((own.starts[i + 1] ?? Number.POSITIVE_INFINITY) <= border) i++;
      while ((theirs.starts[j + 1] ?? Number.POSITIVE_INFINITY) <= border) j++;
      const [mine, other] = [own.values[i]!, theirs.values[j]!];
      const both = mine & other;
      const toldElsewhere = direction === 'ingress' && (other === 1 || other === 2);
      if ((both !== 1 && both !== 2) || (mine !== 1 && mine !== 2) || toldElsewhere) continue;
      spans[both === 1 ? 'now denied' : 'now allowed'].push(...realParts([border, lastBefore(borders[k + 1])]));
    }
    const changes = (['now denied', 'now allowed'] as const)
      .filter((change) => spans[change].length > 0)
      .map((change) => ({ change, spans: spans[change], text: `${change} ${spans[change].join(' ')}` }));
    memo.set(key, changes);
    return changes;
  };
}

/** Subjects to which the same happens with the same peers for the same reason are one group. */
function merge(found: readonly Found[]): ChangedGroup[] {
  const groups = new Map<string, Found & { subjects: number[] }>();
  for (const each of found) {
    const key = `${each.reason} ${each.text} ${each.peers.key}`;
    const before = groups.get(key);
    if (before === undefined) groups.set(key, { ...each, subjects: [each.subject] });
    else before.subjects.push(each.subject);
  }
  return [...groups.values()].map(({ change, spans, direction, subjects, peers }) => {
    const own = endList(subjects, []);
    return { change, spans, from: direction === 'egress' ? own : peers, to: direction === 'egress' ? peers : own };
  });
}
