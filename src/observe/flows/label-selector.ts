// Label selectors as flow clients write them: `k8s:app=web`, `app in (a, b), !canary`, `reserved:host`. A key without a
// source matches labels of every source.

import type { Parsed } from '../../core/ip.ts';
import { parseLabel } from '../../core/labels.ts';

/** Whether an end with these labels is selected. */
export type LabelMatch = (labels: readonly string[]) => boolean;

type Values = (source: string, key: string, labels: readonly string[]) => string[];

const valuesOf: Values = (source, key, labels) =>
  labels.flatMap((text) => {
    const label = parseLabel(text);
    return label.key === key && (source === 'any' || label.source === source) ? [label.value] : [];
  });

/** Parses a selector; requirements are separated by commas and all must hold. */
export function parseLabelSelector(text: string): Parsed<LabelMatch> {
  if (text.length > 4096) return { ok: false, reason: 'is longer than 4096 characters' };
  const parts = split(text);
  if (parts === undefined) return { ok: false, reason: 'has brackets that do not match' };
  if (parts.length === 0) return { ok: false, reason: 'is empty' };
  const matches: LabelMatch[] = [];
  for (const part of parts) {
    const match = requirement(part);
    if (match === undefined)
      return { ok: false, reason: `has a part that cannot be understood: ${JSON.stringify(part)}` };
    matches.push(match);
  }
  return { ok: true, value: (labels) => matches.every((match) => match(labels)) };
}

/** The requirements, cut at the commas that are not in brackets. */
function split(text: string): string[] | undefined {
  const parts: string[] = [];
  let open = false;
  let from = 0;
  for (let i = 0; i <= text.length; i++) {
    const char = text[i];
    if (char === '(' || char === ')') {
      if (open === (char === '(')) return undefined;
      open = !open;
    }
    if (i < text.length && (char !== ',' || open)) continue;
    parts.push(text.slice(from, i).trim());
    from = i + 1;
  }
  return open ? undefined : parts.filter((part) => part !== '');
}

const keyPattern = '([A-Za-z0-9][-A-Za-z0-9_.]*:)?([A-Za-z0-9][-A-Za-z0-9_./]*)';
const forms = {
  set: new RegExp(`^${keyPattern}\\s+(in|notin)\\s*\\(([^()]*)\\)$`),
  compare: new RegExp(`^${keyPattern}\\s*(=|==|!=)\\s*([-A-Za-z0-9_.]*)$`),
  exists: new RegExp(`^(!?)\\s*${keyPattern}$`),
} as const;

function requirement(part: string): LabelMatch | undefined {
  const source = (given: string | undefined) => given?.slice(0, -1) ?? 'any';
  const set = forms.set.exec(part);
  if (set !== null) {
    const values = set[4]!.split(',').map((value) => value.trim());
    const wanted = set[3] === 'in';
    return (labels) => valuesOf(source(set[1]), set[2]!, labels).some((value) => values.includes(value)) === wanted;
  }
  const compare = forms.compare.exec(part);
  if (compare !== null) {
    const wanted = compare[3] !== '!=';
    return (labels) => valuesOf(source(compare[1]), compare[2]!, labels).includes(compare[4]!) === wanted;
  }
  const exists = forms.exists.exec(part);
  if (exists === null) return undefined;
  return (labels) => valuesOf(source(exists[2]), exists[3]!, labels).length > 0 === (exists[1] === '');
}
