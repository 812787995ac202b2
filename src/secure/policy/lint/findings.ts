// What can be wrong with policies, in one table: codes, how bad it is, what it means and what to do.
import type { Manifest } from '../manifests/read-manifests.ts';

/** How bad it is. */
export type Severity = 'error' | 'warning';

/** What a code means. */
export interface FindingKind {
  readonly severity: Severity;
  readonly meaning: string;
  readonly hint: string;
}

/** All codes; docs/policy-tools.md lists them. */
export const findingKinds = {
  YAML_INVALID: {
    severity: 'error',
    meaning: 'The file cannot be read.',
    hint: 'correct the YAML',
  },
  KIND_UNKNOWN: {
    severity: 'error',
    meaning: 'The kind is nearly that of a policy.',
    hint: 'correct the kind',
  },
  POLICY_INVALID: {
    severity: 'error',
    meaning: 'The policy cannot be understood: it would isolate whom it selects and allow nothing.',
    hint: 'correct the field',
  },
  POLICY_TWICE: {
    severity: 'error',
    meaning: 'Two policies have the same kind, namespace and name: the later one replaces the other.',
    hint: 'rename one of them, or delete it',
  },
  NOT_ENFORCED_YET: {
    severity: 'warning',
    meaning: 'A rule uses what is not enforced yet: it isolates its direction, and allows and denies nothing.',
    hint: 'leave the field out, or expect the rule to do nothing',
  },
  NOT_AS_IT_SEEMS: {
    severity: 'warning',
    meaning: 'A part of the policy is understood, and does something else than it seems to: mostly nothing.',
    hint: 'write what is meant, or leave it out',
  },
  SELECTS_NOBODY: {
    severity: 'warning',
    meaning: 'The policy selects none of the pods that are known.',
    hint: 'compare its selector and namespace with the labels of the pods',
  },
  PEER_IS_NOBODY: {
    severity: 'warning',
    meaning: 'A selector of a rule selects none of the pods that are known.',
    hint: 'compare it with the labels of pods and namespaces',
  },
  RULE_SHADOWED: {
    severity: 'warning',
    meaning: 'Another rule decides about everything that this rule matches.',
    hint: 'delete the rule, or narrow the one before it',
  },
  PORT_NAME_UNKNOWN: {
    severity: 'warning',
    meaning: 'No pod that the rule is about has a port of this name.',
    hint: 'name the port in the pod, or write its number',
  },
  DNS_CUT: {
    severity: 'warning',
    meaning: 'The policy isolates pods for egress, and nothing lets them ask for names.',
    hint: 'allow 53/UDP and 53/TCP to the pods of kube-dns',
  },
  API_SERVER_CUT: {
    severity: 'warning',
    meaning:
      'Pods with a service account of their own are isolated for egress, and nothing lets them reach the API server.',
    hint: 'allow the entity kube-apiserver, if they talk with it',
  },
  BLOCK_HOLDS_PODS: {
    severity: 'warning',
    meaning: 'A block of cilium.io/v2 holds addresses of pods, and matches none of them.',
    hint: 'blocks stand for what is outside: name pods by their labels',
  },
  EGRESS_MISSING: {
    severity: 'warning',
    meaning: 'A rule lets pods in whose own policies do not let them out.',
    hint: 'allow it at the other side, too',
  },
} as const satisfies Record<string, FindingKind>;

/** A code. */
export type FindingCode = keyof typeof findingKinds;

/** Something wrong, and where. */
export interface Finding {
  readonly file: string;
  readonly line: number;
  readonly column: number;
  readonly severity: Severity;
  readonly code: FindingCode;
  readonly message: string;
  readonly hint: string;
  /** Such as `NetworkPolicy shop/db`. */
  readonly policy?: string;
}

/** A finding about a JSON path of an object. */
export function findingAt(
  manifest: Manifest,
  code: FindingCode,
  path: string,
  message: string,
  hint?: string,
): Finding {
  const { severity, hint: usual } = findingKinds[code];
  const { file, kind, namespace, name } = manifest;
  const policy = `${kind} ${namespace === '' ? '' : `${namespace}/`}${name}`;
  return { file, ...manifest.place(path), severity, code, message, hint: hint ?? usual, policy };
}

/** One line: `file:line:column: error: CODE message (hint)`. */
export function findingText({ file, line, column, severity, code, message, hint }: Finding): string {
  return `${file}:${line}:${column}: ${severity}: ${code} ${message} (${hint})`;
}

/** In the order of files and lines. */
export function sortFindings(findings: readonly Finding[]): Finding[] {
  return [...findings].sort(
    (a, b) => (a.file === b.file ? 0 : a.file < b.file ? -1 : 1) || a.line - b.line || a.column - b.column,
  );
}
