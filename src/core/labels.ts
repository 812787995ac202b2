// Labels and label selectors as Kubernetes writes them. Weir names a label with its source: `k8s:app=web`.

/** Labels by key, as on a Kubernetes object. */
export type LabelMap = Readonly<Record<string, string>>;

/** A label with where it came from. */
export interface Label {
  readonly source: string;
  readonly key: string;
  readonly value: string;
}

/** One line of matchExpressions. */
export interface Requirement {
  readonly key: string;
  readonly operator: 'In' | 'NotIn' | 'Exists' | 'DoesNotExist';
  readonly values: readonly string[];
}

/** A selector: every label and every requirement must hold. Without any it selects everything. */
export interface LabelSelector {
  readonly matchLabels: LabelMap;
  readonly matchExpressions: readonly Requirement[];
}

/** The selector of everything. */
export const everything: LabelSelector = { matchLabels: {}, matchExpressions: [] };

/** `k8s:app=web` from its parts. */
export function formatLabel(label: Label): string {
  return `${label.source}:${label.key}=${label.value}`;
}

/** The parts of `k8s:app=web`. A missing source is `any`, a missing `=` is an empty value. */
export function parseLabel(text: string): Label {
  const equals = text.indexOf('=');
  const name = equals < 0 ? text : text.slice(0, equals);
  const colon = name.indexOf(':');
  const source = colon < 0 ? 'any' : name.slice(0, colon);
  return { source, key: name.slice(colon + 1), value: equals < 0 ? '' : text.slice(equals + 1) };
}

/** Why a label key is not one, or undefined when it is. */
export function labelKeyProblem(key: string): string | undefined {
  const slash = key.indexOf('/');
  const name = key.slice(slash + 1);
  const prefix = slash < 0 ? undefined : key.slice(0, slash);
  if (name.length === 0) return 'has no name';
  if (name.length > 63) return `has a name of ${name.length} characters; 63 are allowed`;
  if (!/^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$/.test(name)) {
    return 'has a name with other characters than letters, digits, "-", "_", "." or that does not begin and end with a letter or digit';
  }
  if (prefix === undefined) return undefined;
  if (prefix.length > 253) return `has a prefix of ${prefix.length} characters; 253 are allowed`;
  const dns = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;
  return dns.test(prefix) ? undefined : 'has a prefix that is not a DNS name in lower case';
}

/** Why a label value is not one, or undefined when it is. */
function labelValueProblem(value: string): string | undefined {
  if (value.length > 63) return `has ${value.length} characters; 63 are allowed`;
  if (value === '' || /^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$/.test(value)) return undefined;
  return 'has other characters than letters, digits, "-", "_", "." or does not begin and end with a letter or digit';
}

/** Whether a selector selects an object with these labels. NotIn and DoesNotExist also hold for a missing key. */
export function selectorMatches(selector: LabelSelector, labels: LabelMap): boolean {
  return selectorHolds(selector, (key) => ownValue(labels, key));
}

/** The same for labels that are found by asking. */
export function selectorHolds(selector: LabelSelector, labelOf: (key: string) => string | undefined): boolean {
  for (const key in selector.matchLabels) if (labelOf(key) !== selector.matchLabels[key]) return false;
  return selector.matchExpressions.every((requirement) => requirementHolds(requirement, labelOf(requirement.key)));
}

/** Every object has a "constructor": only the labels' own keys count. */
export function ownValue(labels: LabelMap, key: string): string | undefined {
  return Object.hasOwn(labels, key) ? labels[key] : undefined;
}

function requirementHolds(requirement: Requirement, value: string | undefined): boolean {
  switch (requirement.operator) {
    case 'In':
      return value !== undefined && requirement.values.includes(value);
    case 'NotIn':
      return value === undefined || !requirement.values.includes(value);
    case 'Exists':
      return value !== undefined;
    case 'DoesNotExist':
      return value === undefined;
  }
}

/** The label keys a selector asks about. */
export function selectorKeys(selector: LabelSelector): string[] {
  return [...Object.keys(selector.matchLabels), ...selector.matchExpressions.map((requirement) => requirement.key)];
}

/** A canonical text of a selector: equal texts select the same. */
export function selectorKey(selector: LabelSelector): string {
  const labels = Object.entries(selector.matchLabels).sort(([a], [b]) => (a < b ? -1 : 1));
  const requirements = selector.matchExpressions
    .map(({ key, operator, values }) => JSON.stringify([key, operator, [...values].sort()]))
    .sort();
  return JSON.stringify([labels, requirements]);
}

/**
 * Reads a selector from an API object. All problems are found, each with its JSON path; the selector holds what could
 * be read. A missing selector is the caller's business.
 */
export function parseSelector(given: unknown, path: string, problems: string[]): LabelSelector {
  const bad = (at: string, text: string): void => void problems.push(`${at} ${text}`);
  if (!isObject(given)) {
    bad(path, 'must be an object');
    return everything;
  }
  for (const field of Object.keys(given)) {
    if (field !== 'matchLabels' && field !== 'matchExpressions') {
      bad(`${path}.${field}`, 'is not a field of a label selector; use matchLabels or matchExpressions');
    }
  }
  const matchLabels: Record<string, string> = {};
  const labels = given.matchLabels ?? {};
  if (!isObject(labels)) bad(`${path}.matchLabels`, 'must be an object');
  else {
    for (const [key, value] of Object.entries(labels)) {
      const at = `${path}.matchLabels[${JSON.stringify(key)}]`;
      const keyProblem = labelKeyProblem(key);
      if (keyProblem !== undefined) bad(at, `is not a label key: it ${keyProblem}`);
      else if (typeof value !== 'string') bad(at, 'must be a text; put the value in quotes');
      else if (labelValueProblem(value) !== undefined) bad(at, `is not a label value: it ${labelValueProblem(value)}`);
      else matchLabels[key] = value;
    }
  }
  const expressions = given.matchExpressions ?? [];
  if (!Array.isArray(expressions)) bad(`${path}.matchExpressions`, 'must be a list');
  const list: unknown[] = Array.isArray(expressions) ? expressions : [];
  const matchExpressions = list.flatMap((entry, i) => parseRequirement(entry, `${path}.matchExpressions[${i}]`, bad));
  return { matchLabels, matchExpressions };
}

function parseRequirement(given: unknown, path: string, bad: (at: string, text: string) => void): Requirement[] {
  if (!isObject(given)) {
    bad(path, 'must be an object');
    return [];
  }
  for (const field of Object.keys(given)) {
    if (!['key', 'operator', 'values'].includes(field)) bad(`${path}.${field}`, 'is not a field of a requirement');
  }
  const { key, operator } = given;
  const values = given.values ?? [];
  const keyProblem = typeof key === 'string' ? labelKeyProblem(key) : 'is missing';
  if (keyProblem !== undefined) bad(`${path}.key`, `is not a label key: it ${keyProblem}`);
  const known = operator === 'In' || operator === 'NotIn' || operator === 'Exists' || operator === 'DoesNotExist';
  if (!known) bad(`${path}.operator`, 'must be In, NotIn, Exists or DoesNotExist');
  const texts = Array.isArray(values) && values.every((value) => typeof value === 'string');
  if (!texts) bad(`${path}.values`, 'must be a list of texts');
  if (!known || !texts || keyProblem !== undefined) return [];
  const needsValues = operator === 'In' || operator === 'NotIn';
  if (needsValues !== values.length > 0) {
    bad(`${path}.values`, needsValues ? `must not be empty with ${operator}` : `must be empty with ${operator}`);
    return [];
  }
  for (const [i, value] of (values as string[]).entries()) {
    const problem = labelValueProblem(value);
    if (problem === undefined) continue;
    bad(`${path}.values[${i}]`, `is not a label value: it ${problem}`);
    return [];
  }
  return [{ key: key as string, operator, values: values as string[] }];
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
