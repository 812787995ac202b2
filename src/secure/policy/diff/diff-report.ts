// A diff of policies for people and programs: names for ends, words for ports, and why it was one thing and is another.
import { type PolicyRow, policyName, type RuleOrigin } from '../../../core/rows.ts';
import { evaluateParties, type PolicyModel, type Service, type Verdict } from '../evaluate.ts';
import { ruleText } from '../explain.ts';
import type { ChangedGroup, PolicyDiff } from './diff-policies.ts';
import type { EndList } from './end-list.ts';
import { type Span, serviceOf, spanTexts } from './port-space.ts';

/** Connections that change alike: every one of `from` to every one of `to` at all of `ports`. */
export interface ReportedChange {
  readonly change: ChangedGroup['change'];
  /** The first ones, by name; `fromCount` says how many there are. */
  readonly from: readonly string[];
  readonly fromCount: number;
  readonly to: readonly string[];
  readonly toCount: number;
  readonly ports: readonly string[];
  /** Such as `allowed by NetworkPolicy shop/db ingress[0]`. */
  readonly was: string;
  readonly now: string;
}

/** What `policy diff` says. */
export interface DiffReport {
  /** Pairs of ends that lose a connection, and that win one. */
  readonly nowDenied: number;
  readonly nowAllowed: number;
  readonly policies: PolicyDiff['policies'];
  readonly changes: readonly ReportedChange[];
}

const maxNames = 1000;

/** Puts a diff into words. */
export function diffReport(diff: PolicyDiff, before: PolicyModel, after: PolicyModel): DiffReport {
  const namesOf = (list: EndList): string[] => list.take(maxNames).map((end) => diff.ends[end]!.name);
  const changes = diff.groups.map(({ change, from, to, spans }): ReportedChange => {
    const [source, destination] = [from.take(1)[0]!, to.take(1)[0]!];
    const at = { source, destination, service: serviceOf(spans[0]![0]) };
    return {
      change,
      from: namesOf(from),
      fromCount: from.count,
      to: namesOf(to),
      toCount: to.count,
      ports: spanTexts(spans as readonly Span[]),
      was: reason(diff, before, 'before', at),
      now: reason(diff, after, 'after', at),
    };
  });
  changes.sort((a, b) => compare(b.change, a.change) || compare(a.from[0]!, b.from[0]!) || compare(a.to[0]!, b.to[0]!));
  return { nowDenied: diff.nowDenied, nowAllowed: diff.nowAllowed, policies: diff.policies, changes };
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Judged again by the policies of the two ends alone. */
function reason(
  { ends, policiesOf }: PolicyDiff,
  model: PolicyModel,
  side: 'before' | 'after',
  { source, destination, service }: { source: number; destination: number; service: Service },
): string {
  const own = [source, destination].map((end) => policiesOf(end)[side]);
  const policies = [...new Set<PolicyRow>(own.flat())].map((row) => ({ ...row, staged: false }));
  const parties = [ends[source]!.party, ends[destination]!.party] as const;
  const { egress, ingress } = evaluateParties({ ...model, policies }, ...parties, service);
  return verdictText(egress, ingress);
}

/** Why a connection is allowed or denied, in a few words. */
export function verdictText(egress: Verdict, ingress: Verdict): string {
  const rules = (origins: readonly RuleOrigin[]): string => listText(origins.map(ruleText), 3);
  if (egress.allowed && ingress.allowed) {
    const by = [...egress.decidedBy, ...ingress.decidedBy];
    return by.length === 0 ? 'allowed: nobody isolates either end' : `allowed by ${rules(by)}`;
  }
  const texts = [egress, ingress].flatMap((verdict) => {
    if (verdict.allowed) return [];
    if (verdict.decidedBy.length > 0) return [`denied by ${rules(verdict.decidedBy)}`];
    return [
      `isolated by ${
        listText(
          verdict.isolatedBy.map((each) => `${each.kind} ${policyName(each)}`),
          3,
        ) || 'no policy by name'
      }`,
    ];
  });
  return [...new Set(texts)].join(' and ');
}

/** Some names, and how many more. `count` is their number where not all are given. */
function listText(names: readonly string[], most: number, count = names.length): string {
  const shown = names.slice(0, most).join(', ');
  return count > most ? `${shown} and ${count - most} more` : shown;
}

/** One line: `now denied: shop/web -> shop/db 5432/TCP (was allowed by ..., now isolated by ...)`. */
export function changeText({ change, from, fromCount, to, toCount, ports, was, now }: ReportedChange): string {
  const ends = `${listText(from, 5, fromCount)} -> ${listText(to, 5, toCount)}`;
  return `${change}: ${ends} ${listText(ports, 8)} (was ${was}, now ${now})`;
}
