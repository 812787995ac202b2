// FlowAccess objects: what each grants to whom. Who is asked for has been identified before.
import { type LabelMap, type LabelSelector, parseSelector, selectorMatches } from '../../core/labels.ts';
import { type FlowAccess, flowAccessSchema } from '../../kube/weir/schemas.ts';
import type { NamespaceGrant } from './rights.ts';

/** Somebody whose name is certain. */
export interface AccessUser {
  readonly name: string;
  readonly groups: readonly string[];
  /** What Kubernetes said besides, for its own decisions. */
  readonly uid?: string;
  readonly extra?: Readonly<Record<string, readonly string[]>>;
}

/** A FlowAccess that is understood. */
export interface FlowGrantRow {
  readonly name: string;
  readonly subjects: FlowAccess['spec']['subjects'];
  readonly namespaces: readonly string[];
  /** Absent: only those that are named. */
  readonly selector?: LabelSelector;
  readonly grant: NamespaceGrant;
}

/** Reads an object; the reason when it grants nothing because it cannot be understood. */
export function parseFlowAccess(object: unknown): { row: FlowGrantRow } | { problem: string } {
  const parsed = flowAccessSchema.safeParse(object);
  if (!parsed.success) return { problem: parsed.error.issues.map((each) => each.message).join('; ') };
  const { subjects, namespaces = [], namespaceSelector, verbs, redactions = [] } = parsed.data.spec;
  const problems: string[] = [];
  const selector =
    namespaceSelector === undefined ? undefined : parseSelector(namespaceSelector, 'spec.namespaceSelector', problems);
  if (problems.length > 0) return { problem: problems.join('; ') };
  const { name } = (object as FlowAccess).metadata;
  return { row: { name, subjects, namespaces, selector, grant: { verbs, redactions } } };
}

/** The grants of these objects to a user in a namespace; of one that has gone or is not known no labels match. */
export function grantsOf(
  rows: readonly FlowGrantRow[],
  user: AccessUser,
  namespace: string,
  labels: LabelMap | undefined,
): NamespaceGrant[] {
  return rows
    .filter(
      ({ subjects, namespaces, selector }) =>
        (namespaces.includes(namespace) ||
          (selector !== undefined && labels !== undefined && selectorMatches(selector, labels))) &&
        subjects.some((subject) => isSubject(subject, user)),
    )
    .map(({ grant }) => grant);
}

function isSubject({ kind, name, namespace }: FlowGrantRow['subjects'][number], user: AccessUser): boolean {
  switch (kind) {
    case 'User':
      return user.name === name;
    case 'Group':
      return user.groups.includes(name);
    case 'ServiceAccount':
      return namespace !== undefined && user.name === `system:serviceaccount:${namespace}:${name}`;
  }
}
