// The policies, and which endpoints of this node each selects. Only policies that select one of them are made ready; all
// others cost nothing but their row. Says which subjects, and which rules of them, need compiling again.
import { deepEqual } from '../../core/equal.ts';
import { type PodIdentity, selectsPod } from '../../core/identity.ts';
import type { LabelMap } from '../../core/labels.ts';
import type { Direction, PolicyRow } from '../../core/rows.ts';
import { type CompiledRule, compileRule, type LocalPolicy, speakerOf } from './compiled-rule.ts';

/** The directions, for loops. */
export const directions: readonly Direction[] = ['ingress', 'egress'];

/** Who is to be judged: pods of one identity, the node itself, or pods whose labels are not known. */
export type SubjectIs = PodIdentity | 'node' | undefined;

/** An identity that endpoints of this node have. */
export interface Subject {
  readonly identity: number;
  is: SubjectIs;
  /** Its labels are unknown. */
  readonly closed: boolean;
  readonly policies: Set<LocalPolicy>;
}

/** What changes of policies and subjects lead to. */
export interface PolicyEvents {
  ruleAdded(rule: CompiledRule): void;
  ruleRemoved(rule: CompiledRule): void;
  /** The rule concerns this subject now, or no longer. */
  ruleTouched(rule: CompiledRule, subject: Subject): void;
  /** Other policies isolate the subject or have rules for it, or other rules for any peer concern it. */
  isolationTouched(subject: Subject, direction: Direction): void;
}

/** The policies known, and the subjects. */
export interface LocalPolicies {
  set(row: PolicyRow): void;
  delete(key: string): void;
  has(key: string): boolean;
  keys(): IterableIterator<string>;
  /** Tells that endpoints of this node have an identity, and what it is. */
  setSubject(identity: number, is: SubjectIs): void;
  /** Tells a namespace's labels; undefined when it is gone or unknown. */
  setNamespace(name: string, labels: LabelMap | undefined): void;
  deleteSubject(identity: number): void;
  subject(identity: number): Subject | undefined;
  subjects(): IterableIterator<Subject>;
}

/** Makes an empty set of policies. */
export function createLocalPolicies(events: PolicyEvents): LocalPolicies {
  const rows = new Map<string, PolicyRow>();
  /** Those of the whole cluster under the empty name. */
  const keysOfNamespace = new Map<string, Set<string>>();
  const namespaces = new Map<string, LabelMap>();
  const active = new Map<string, LocalPolicy>();
  const subjects = new Map<number, Subject>();
  let lastRuleId = 0;

  function selects(row: PolicyRow, is: SubjectIs): boolean {
    if (is === undefined || is === 'node') return is === row.subject.kind;
    if (row.subject.kind === 'node' || (row.namespace !== '' && row.namespace !== is.namespace)) return false;
    return selectsPod(row.subject.selector, is, namespaces.get(is.namespace));
  }

  /** Compares a subject with all policies that may select it. */
  function review(subject: Subject): void {
    const { is } = subject;
    for (const policy of [...subject.policies]) if (!selects(policy.row, is)) unselect(policy, subject);
    if (is === undefined) return;
    const own = is === 'node' ? [] : (keysOfNamespace.get(is.namespace) ?? []);
    for (const key of [...own, ...(keysOfNamespace.get('') ?? [])]) {
      const row = rows.get(key)!;
      if (!selects(row, is)) continue;
      const policy = active.get(key) ?? activate(row);
      if (!subject.policies.has(policy)) select(policy, subject);
    }
  }

  function touch(policy: LocalPolicy, subject: Subject): void {
    for (const direction of directions) {
      if (concerns(policy.row, direction)) events.isolationTouched(subject, direction);
      for (const rule of policy.rules[direction]) events.ruleTouched(rule, subject);
    }
  }

  function activate(row: PolicyRow, previous?: LocalPolicy): LocalPolicy {
    const policy: LocalPolicy = {
      row,
      subjects: new Set(),
      rules: { ingress: [], egress: [] },
      isolation: { ingress: speakerOf(row, 'ingress'), egress: speakerOf(row, 'egress') },
    };
    active.set(row.key, policy);
    const kept = previous !== undefined && sameFrame(previous.row, row);
    for (const direction of directions) {
      for (const [i, rule] of row[direction].entries()) {
        const old = kept && deepEqual(previous.row[direction][i], rule) ? previous.rules[direction][i] : undefined;
        const made = old ?? compileRule(policy, direction, rule, ++lastRuleId);
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
  function replace(old: LocalPolicy, row: PolicyRow, selected: readonly Subject[]): void {
    const before = [...old.subjects].map((identity) => subjects.get(identity)!);
    const policy = activate(row, old);
    const gone: [Direction, CompiledRule][] = [];
    for (const direction of directions) {
      for (const rule of old.rules[direction]) if (rule.policy !== policy) gone.push([direction, rule]);
    }
    const kept = sameFrame(old.row, row);
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
        const isolates = old.row.isolates[direction] !== row.isolates[direction];
        if (!kept || isolates || concerns(old.row, direction) !== concerns(row, direction)) {
          events.isolationTouched(subject, direction);
        }
        for (const rule of policy.rules[direction]) {
          if (!old.rules[direction].includes(rule)) events.ruleTouched(rule, subject);
        }
      }
    }
    for (const [, rule] of gone) events.ruleRemoved(rule);
  }

  function reselect(row: PolicyRow | undefined, key: string): void {
    const selected = row === undefined ? [] : [...subjects.values()].filter((subject) => selects(row, subject.is));
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
    setSubject(identity, is) {
      let subject = subjects.get(identity);
      if (subject === undefined) {
        subject = {
          identity,
          is: undefined,
          get closed() {
            return this.is === undefined;
          },
          policies: new Set(),
        };
        subjects.set(identity, subject);
      } else if (deepEqual(subject.is, is)) return;
      subject.is = is;
      for (const direction of directions) events.isolationTouched(subject, direction);
      review(subject);
    },
    setNamespace(name, labels) {
      if (deepEqual(namespaces.get(name), labels)) return;
      if (labels === undefined) namespaces.delete(name);
      else namespaces.set(name, labels);
      for (const subject of subjects.values()) {
        if (typeof subject.is === 'object' && subject.is.namespace === name) review(subject);
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

/** Whether a policy says anything about a direction. */
export function concerns(row: PolicyRow, direction: Direction): boolean {
  return row.isolates[direction] || row[direction].length > 0;
}

/** Whether a newer version of a policy speaks as the old one did: then rules that did not change are kept. */
function sameFrame(a: PolicyRow, b: PolicyRow): boolean {
  return (
    a.staged === b.staged &&
    a.uid === b.uid &&
    a.log === b.log &&
    a.spec === b.spec &&
    a.tier === b.tier &&
    a.priority === b.priority
  );
}
