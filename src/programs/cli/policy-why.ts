// `weir policy why`: may this end talk with that one, by which rule, and what would change it. Asks agents, or works it out
// from files.
import { WeirError } from '../../core/errors.ts';
import { policyName, type RuleOrigin, rulePlace } from '../../core/rows.ts';
import type { EndExplanation } from '../../secure/policy/explain.ts';
import { offlineModel } from '../../secure/policy/manifests/offline-model.ts';
import { answerWhy, type PolicyWhy, type WhyAnswers } from '../../secure/policy/why.ts';
import type { PolicyWhyView } from '../agent/policy-why.ts';
import { askNodes, notFound } from './ask-nodes.ts';
import { printValue } from './output.ts';
import { readObjects } from './policy/read-files.ts';
import type { QueryOptions } from './query-command.ts';

type WhyOptions = QueryOptions & {
  readonly port: string;
  readonly file?: readonly string[];
  readonly pods?: readonly string[];
};

/** Prints the answer of the first node that knows both ends, or that of the files. */
export async function explainPolicy(from: string, to: string, options: WhyOptions): Promise<void> {
  const view =
    options.file === undefined && options.pods === undefined
      ? await askAgents(from, to, options)
      : whyOfFiles(from, to, options);
  if (view === undefined) return;
  if (options.output !== 'table') return printValue(view, options);
  process.stdout.write(view.answers.map(whyText).join('\n'));
  if (view.more > 0) process.stdout.write(`\n${view.more} more pairs: name one pod on each side.\n`);
}

async function askAgents(from: string, to: string, options: WhyOptions): Promise<PolicyWhyView | undefined> {
  const query = new URLSearchParams({ from, to, port: options.port });
  const answers = await askNodes<PolicyWhyView>(options, `/v1/policy-why?${query}`);
  const views = answers.flatMap((answer) => answer.value ?? []);
  const view = views.find((each) => each.notFound === undefined);
  const missing = views[0]?.notFound;
  const error = view === undefined && missing !== undefined && notFound(missing.reason, missing.hint);
  if (error) throw error;
  return view;
}

function whyOfFiles(from: string, to: string, { port, file = [], pods = [] }: WhyOptions): WhyAnswers {
  const manifests = readObjects([...file, ...pods]);
  const { model, services } = offlineModel(manifests, { namespaces: namespacesNamed(from, to) });
  const answers = answerWhy(model, services, { from, to, port });
  if (answers.notFound === undefined) return answers;
  const { reason, hint } = answers.notFound;
  throw new WeirError('NOT_FOUND', reason, `${hint} Files with pods or workloads go with --pods.`);
}

/** Labels such as `app=web@shop` may speak of a namespace that no manifest has: it has its name as a label, as all have. */
export function namespacesNamed(...ends: readonly string[]): string[] {
  return ends.flatMap((end) => (end.includes('=') ? [/@([^@]+)$/.exec(end.trim())?.[1] ?? 'default'] : []));
}

/** One answer in words. */
export function whyText(why: PolicyWhy): string {
  const verdict = why.allowed ? 'allowed' : 'denied';
  const staged =
    why.stagedAllowed === why.allowed
      ? ''
      : ` (${why.stagedAllowed ? 'allowed' : 'denied'} once staged policies are enforced)`;
  return [
    `${why.from} -> ${why.to} ${why.service}: ${verdict}${staged}`,
    ...endText('egress', `leaving ${why.from}`, why.egress),
    ...endText('ingress', `arriving at ${why.to}`, why.ingress),
    '',
  ].join('\n');
}

function endText(direction: string, where: string, end: EndExplanation): string[] {
  const lines = [`  ${direction}, ${where}: ${end.allowed ? 'allowed' : 'denied'}, ${becauseText(end)}`];
  for (const { rule, lacks } of end.almost.slice(0, 3))
    lines.push(`    almost: ${ruleName(rule)}, but ${lacks.join(', ')}`);
  if (end.change !== undefined) lines.push(`    to ${end.allowed ? 'deny' : 'allow'} it: ${end.change}`);
  return lines;
}

function becauseText(end: EndExplanation): string {
  switch (end.because) {
    case 'a rule':
      return `by ${end.decidedBy.map(ruleName).join(', ')}`;
    case 'the default deny':
      return `isolated by ${end.isolatedBy.map(ruleName).join(', ') || 'no policy by name'}, and no rule matches`;
    default:
      return end.because;
  }
}

function ruleName(rule: RuleOrigin): string {
  const place = rulePlace(rule);
  return `${rule.kind} ${policyName(rule)}${place === undefined ? '' : ` ${place}`}`;
}
