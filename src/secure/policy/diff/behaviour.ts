// How an end judges others in one direction, before and after: which of its rules concern whom, and the verdict for every
// protocol and port. Peers with the same rules have one signature; what is asked twice is worked out once.
import { reservedIdentities } from '../../../core/identity.ts';
import {
  type Direction,
  type NamedPort,
  type OwnNodeSpared,
  type PolicyPort,
  sparesOwnNode,
} from '../../../core/rows.ts';
import { decide, type Ranked } from '../precedence.ts';
import type { EndSets } from './end-sets.ts';
import { bordersOf, type Span, spansOf } from './port-space.ts';

/** Bit 0: before; bit 1: after. */
export type Sides = 1 | 2 | 3;

/** A rule with when it is there. */
export interface SidedRule extends Ranked {
  readonly id: number;
  readonly sides: Sides;
  /** Those it names; undefined for everybody. In rising order. */
  readonly peers: readonly number[] | undefined;
  readonly ports: readonly PolicyPort[] | undefined;
  readonly named: boolean;
  readonly sparesOwnNode: OwnNodeSpared | undefined;
}

/** A policy with when it is there. */
export interface SidedPolicy {
  readonly id: number;
  readonly sides: Sides;
  readonly isolates: Readonly<Record<Direction, boolean>>;
  readonly rules: Readonly<Record<Direction, readonly SidedRule[]>>;
}

/** A verdict for each span, from each start to the next. Bit 0 of a value: allowed before; bit 1: allowed after. */
export interface Verdicts {
  readonly id: number;
  readonly starts: readonly number[];
  readonly values: readonly number[];
  /** Somewhere it is another one afterwards. */
  readonly differs: boolean;
}

/** An end's judgement in one direction. */
export interface Behaviour {
  readonly id: number;
  /** What the rules tell apart about a peer. */
  signatureOf(peer: number): number;
  /** The peers whose signature is not 0. */
  readonly told: Iterable<number>;
  verdicts(signature: number): Verdicts;
}

/** Makes behaviours for ends. */
export interface Behaviours {
  of(end: number, direction: Direction): Behaviour;
}

interface Signature {
  readonly rules: readonly SidedRule[];
  readonly named: readonly NamedPort[];
  /** The peer is the pod's own node. */
  readonly ownNode: { readonly apiServer: boolean } | undefined;
}

/** Ready to answer for the ends of an index. */
export function createBehaviours(
  { ends }: Pick<EndSets, 'ends'>,
  policiesOf: readonly (readonly SidedPolicy[])[],
): Behaviours {
  const interned = new Map<string, Verdicts>();
  const behaviours = new Map<string, Behaviour>();
  const memo: Record<Direction, (Behaviour | undefined)[]> = { ingress: [], egress: [] };
  const hosts = ends.flatMap((end, i) => (end.party.identity === reservedIdentities.host ? [i] : []));
  const portKeys = ends.map(({ party }) => portsKey(party.namedPorts));
  const namers = ends.flatMap((_, i) => (portKeys[i] === '' ? [] : [i]));

  function intern(starts: readonly number[], values: readonly number[]): Verdicts {
    const key = `${starts.join()} ${values.join()}`;
    const before = interned.get(key);
    if (before !== undefined) return before;
    const made = { id: interned.size, starts, values, differs: values.some((value) => value === 1 || value === 2) };
    interned.set(key, made);
    return made;
  }
  const open = intern([0], [3]);
  const closed = intern([0], [0]);

  function make(end: number, direction: Direction): Behaviour {
    const { party } = ends[end]!;
    const own = policiesOf[end]!.filter((each) => each.isolates[direction] || each.rules[direction].length > 0);
    const judged = party.isPod || party.identity === reservedIdentities.host;
    const unknown = party.isPod && party.pod === undefined;
    const state = !judged ? 'open' : unknown ? 'closed' : own.map((each) => each.id).join();
    const key = `${direction} ${state} ${direction === 'ingress' && own.length > 0 ? portKeys[end] : ''}`;
    const known = behaviours.get(key);
    if (known !== undefined) return known;
    const id = behaviours.size;
    let made: Behaviour;
    if (!judged || (own.length === 0 && !unknown)) made = { id, signatureOf: () => 0, told: [], verdicts: () => open };
    else if (unknown) {
      const host = new Set(direction === 'ingress' ? hosts : []);
      const signatureOf = (peer: number): number => (host.has(peer) ? 1 : 0);
      made = { id, signatureOf, told: host, verdicts: (of) => (of === 1 ? open : closed) };
    } else made = judging(id, own, direction, direction === 'ingress' ? party.namedPorts : []);
    behaviours.set(key, made);
    return made;
  }

  function judging(
    id: number,
    policies: readonly SidedPolicy[],
    direction: Direction,
    ownPorts: readonly NamedPort[],
  ): Behaviour {
    const rules = policies.flatMap((policy) => policy.rules[direction]);
    const wildcards = rules.filter((rule) => rule.peers === undefined);
    const signatures: Signature[] = [{ rules: [], named: ownPorts, ownNode: undefined }];
    const steps = new Map<string, number>();
    const found = new Map<number, number>();
    const extend = (peer: number, token: string, by: Partial<Signature> & { rule?: SidedRule }): void => {
      const before = found.get(peer) ?? 0;
      const step = `${before} ${token}`;
      let after = steps.get(step);
      if (after === undefined) {
        const { rule, ...rest } = by;
        const { rules: had, ...same } = signatures[before]!;
        after = signatures.push({ ...same, ...rest, rules: rule === undefined ? had : [...had, rule] }) - 1;
        steps.set(step, after);
      }
      found.set(peer, after);
    };
    for (const rule of rules) for (const peer of rule.peers ?? []) extend(peer, `r${rule.id}`, { rule });
    if (direction === 'egress' && rules.some((rule) => rule.named)) {
      for (const peer of namers) extend(peer, `p${portKeys[peer]}`, { named: ends[peer]!.party.namedPorts });
    }
    if (direction === 'ingress')
      for (const peer of hosts) {
        const { apiServer } = ends[peer]!.party;
        extend(peer, `host ${apiServer}`, { ownNode: { apiServer } });
      }
    const isolated = [1, 2].map((side) => policies.some((policy) => policy.sides & side && policy.isolates[direction]));
    const worked: (Verdicts | undefined)[] = [];
    return {
      id,
      signatureOf: (peer) => found.get(peer) ?? 0,
      // Keys of a map can be gone through again and again.
      told: { [Symbol.iterator]: () => found.keys() },
      verdicts(signature) {
        const before = worked[signature];
        if (before !== undefined) return before;
        const { ownNode, rules: told } = signatures[signature]!;
        const any = ownNode ? wildcards.filter((rule) => !sparesOwnNode(rule, ownNode)) : wildcards;
        const made = workOut([...any, ...told], signatures[signature]!, isolated);
        worked[signature] = made;
        return made;
      },
    };
  }

  function workOut(rules: readonly SidedRule[], { named, ownNode }: Signature, isolated: readonly boolean[]): Verdicts {
    const spans = rules.map((rule) => spansOf(rule.ports, named));
    const borders = bordersOf(spans.flat());
    const starts: number[] = [];
    const values: number[] = [];
    for (const border of borders) {
      const matching = rules.filter((_, j) => covers(spans[j]!, border));
      const value = [1, 2].reduce(
        (bits, side) => (allows(matching, side, isolated[side - 1]!, ownNode !== undefined) ? bits | side : bits),
        0,
      );
      if (value === values.at(-1)) continue;
      starts.push(border);
      values.push(value);
    }
    return intern(starts, values);
  }

  return {
    of(end, direction) {
      const list = memo[direction];
      list[end] ??= make(end, direction);
      return list[end];
    },
  };
}

function covers(spans: readonly Span[], point: number): boolean {
  return spans.some(([first, last]) => first <= point && point <= last);
}

/** A node reaches its own pods unless a rule denies it: no isolation and nothing of the lowest tier holds for it. */
function allows(rules: readonly SidedRule[], side: number, isolated: boolean, ownNode: boolean): boolean {
  const there = rules.filter((rule) => rule.sides & side && !(ownNode && rule.tier === 'baseline'));
  const { verdict } = decide(there, isolated && !ownNode);
  return verdict === 'allow' || verdict === 'none';
}

function portsKey(ports: readonly NamedPort[]): string {
  return ports
    .map(({ name, protocol, port }) => `${name}/${protocol}/${port}`)
    .sort()
    .join();
}
