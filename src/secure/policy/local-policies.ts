// The policies, and which pods of this node each selects. Only policies that select one of them are made ready; all
// others cost nothing but their row. Says which subjects, and which rules of them, need compiling again.
import { deepEqual } from '../../core/equal.ts';
import { selectorMatches } from '../../core/labels.ts';
import type { Direction, NetworkPolicyRow } from '../../core/rows.ts';
import { type CompiledRule, compileRule, type LocalPolicy, speakerOf } from './compiled-rule.ts';
import type { PodIdentity } from './selectors.ts';

/** The directions, for loops. */
export const directions: readonly Direction[] = ['ingress', 'egress'];

/** An identity that pods of this node have. */
export interface Subject {
  readonly identity: number;
  /** Undefined while its labels are unknown: then it is closed. */
  pod: PodIdentity | undefined;
  readonly policies: Set<LocalPolicy>;
}

/** What changes of policies and subjects lead to. */
export interface PolicyEvents {
  ruleAdded(rule: CompiledRule): void;
  ruleRemoved(rule: CompiledRule): void;
  /** The rule concerns this subject now, or no longer. */
  ruleTouched(rule: CompiledRule, subject: Subject): void;
  /** Other policies isolate the subject, or other rules for any peer concern it. */
  isolationTouched(subject: Subject, direction: Direction): void;
}

/** The policies known, and the subjects. */
export interface LocalPolicies {
  set(row: NetworkPolicyRow): void;
  delete(key: string): void;
  has(key: string): boolean;
  keys(): IterableIterator<string>;
  /** Tells that pods of this node have an identity, and what it is. */
  setSubject(identity: number, pod: PodIdentity | undefined): void;
  deleteSubject(identity: number): void;
  subject(identity: number): Subject | undefined;
  subjects(): IterableIterator<Subject>;
}

/** Makes an empty set of policies. */
export function createLocalPolicies(events: PolicyEvents): LocalPolicies {
  const rows = new Map<string, NetworkPolicyRow>();
  const keysOfNamespace = new Map<string, Set<string>>();
  const active = new Map<string, LocalPolicy>();
  const subjects = new Map<number, Subject>();
  let lastRuleId = 0;

  function selects(row: NetworkPolicyRow, pod: PodIdentity | undefined): boolean {
    return pod !== undefined && row.namespace === pod.namespace && selectorMatches(row.podSelector, pod.labels);
  }

  function touch(policy: LocalPolicy, subject: Subject): void {
    for (const direction of directions) {
      if (policy.row.isolates[direction]) events.isolationTouched(subject, direction);
      for (const rule of policy.rules[direction]) events.ruleTouched(rule, subject);
    }
  }

  function activate(row: NetworkPolicyRow, previous?: LocalPolicy): LocalPolicy {
    const policy: LocalPolicy = {
      row,
      subjects: new Set(),
      rules: { ingress: [], egress: [] },
      isolation: { ingress: speakerOf(row, 'ingress', -1), egress: speakerOf(row, 'egress', -1) },
    };
    active.set(row.key, policy);
    const kept = previous !== undefined && previous.row.staged === row.staged && previous.row.uid === row.uid;
    for (const direction of directions) {
      for (const [i, rule] of row[direction].entries()) {
        const old = kept && deepEqual(previous.row[direction][i], rule) ? previous.rules[direction][i] : undefined;
        const made = old ?? compileRule(policy, direction, i, ++lastRuleId);
        made.policy = policy;
        policy.rules[direction].push(made);
        if (old === undefined) events.ruleAdded(made);
      }
    }
    return policy;
  }

  function deactivate(policy: LocalPolicy): void {
    active.delete(policy.row.key);
    for (const direction of directions) for (const rule of policy.rules[direction]) events.ruleRemoved(rule);
  }

  /** Puts a newer version in a policy's place, touching only what differs. */
  function replace(old: LocalPolicy, row: NetworkPolicyRow, selected: readonly Subject[]): void {
    const before = [...old.subjects].map((identity) => subjects.get(identity)!);
    const policy = activate(row, old);
    const gone: [Direction, CompiledRule][] = [];
    for (const direction of directions) {
      for (const rule of old.rules[direction]) if (rule.policy !== policy) gone.push([direction, rule]);
    }
    const sameFrame = old.row.staged === row.staged && old.row.uid === row.uid;
    for (const subject of before) {
      subject.policies.delete(old);
      if (!selected.includes(subject)) touch(old, subject);
      for (const [, rule] of gone) events.ruleTouched(rule, subject);
    }
    for (const subject of selected) {
      subject.policies.add(policy);
      policy.subjects.add(subject.identity);
      if (!before.includes(subject)) {
        touch(policy, subject);
        continue;
      }
      for (const direction of directions) {
        if (!sameFrame || old.row.isolates[direction] !== row.isolates[direction]) {
          events.isolationTouched(subject, direction);
        }
        for (const rule of policy.rules[direction]) {
          if (!old.rules[direction].includes(rule)) events.ruleTouched(rule, subject);
        }
      }
    }
    for (const [, rule] of gone) events.ruleRemoved(rule);
  }

  function reselect(row: NetworkPolicyRow | undefined, key: string): void {
    const selected = row === undefined ? [] : [...subjects.values()].filter((subject) => selects(row, subject.pod));
    const old = active.get(key);
    if (old !== undefined && row !== undefined && selected.length > 0) {
      replace(old, row, selected);
      return;
    }
    if (old !== undefined) {
      for (const identity of old.subjects) {
        const subject = subjects.get(identity)!;
        subject.policies.delete(old);
        touch(old, subject);
      }
      deactivate(old);
    }
    if (row === undefined || selected.length === 0) return;
    const policy = activate(row);
    for (const subject of selected) select(policy, subject);
  }

  function select(policy: LocalPolicy, subject: Subject): void {
    policy.subjects.add(subject.identity);
    subject.policies.add(policy);
    touch(policy, subject);
  }

  function unselect(policy: LocalPolicy, subject: Subject): void {
    policy.subjects.delete(subject.identity);
    subject.policies.delete(policy);
    touch(policy, subject);
    if (policy.subjects.size === 0) deactivate(policy);
  }

  return {
    set(row) {
      rows.set(row.key, row);
      const keys = keysOfNamespace.get(row.namespace);
      if (keys === undefined) keysOfNamespace.set(row.namespace, new Set([row.key]));
      else keys.add(row.key);
      reselect(row, row.key);
    },
    delete(key) {
      const row = rows.get(key);
      if (row === undefined) return;
      rows.delete(key);
      const keys = keysOfNamespace.get(row.namespace)!;
      if (keys.delete(key) && keys.size === 0) keysOfNamespace.delete(row.namespace);
      reselect(undefined, key);
    },
    has: (key) => rows.has(key),
    keys: () => rows.keys(),
    setSubject(identity, pod) {
      let subject = subjects.get(identity);
      if (subject === undefined) {
        subject = { identity, pod: undefined, policies: new Set() };
        subjects.set(identity, subject);
      } else if (deepEqual(subject.pod, pod)) return;
      subject.pod = pod;
      for (const direction of directions) events.isolationTouched(subject, direction);
      for (const policy of [...subject.policies]) if (!selects(policy.row, pod)) unselect(policy, subject);
      for (const key of pod === undefined ? [] : (keysOfNamespace.get(pod.namespace) ?? [])) {
        const row = rows.get(key)!;
        if (!selects(row, pod)) continue;
        const policy = active.get(key) ?? activate(row);
        if (!subject.policies.has(policy)) select(policy, subject);
      }
    },
    deleteSubject(identity) {
      const subject = subjects.get(identity);
      if (subject === undefined) return;
      for (const policy of [...subject.policies]) unselect(policy, subject);
      subjects.delete(identity);
    },
    subject: (identity) => subjects.get(identity),
    subjects: () => subjects.values(),
  };
}
