// `weir policy diff`: which connections change between two sets of policies.
import { exitCodes } from '../../../core/exit-codes.ts';
import { policyName } from '../../../core/rows.ts';
import { diffPolicies } from '../../../secure/policy/diff/diff-policies.ts';
import { changeText, type DiffReport, diffReport } from '../../../secure/policy/diff/diff-report.ts';
import type { OfflineModel } from '../../../secure/policy/manifests/offline-model.ts';
import { twoModels } from '../../../secure/policy/manifests/two-models.ts';
import { type OutputOptions, printValue } from '../output.ts';
import { readObjects } from './read-files.ts';

/** The flags. */
export interface DiffFlags extends Pick<OutputOptions, 'output'> {
  readonly pods?: readonly string[];
  readonly node?: string;
  readonly staged?: boolean;
  readonly exitCode?: boolean;
  readonly limit: number;
}

/** Runs the command. */
export async function diffCommand(old: string, now: string, flags: DiffFlags): Promise<void> {
  const { before, after, madeUp } = twoModels(readObjects([old]), readObjects([now]), readObjects(flags.pods ?? []), {
    node: flags.node,
  });
  for (const [path, side] of [
    [old, before],
    [now, after],
  ] as const)
    warnOfProblems(path, side);
  const diff = diffPolicies(before.model, after.model, { staged: flags.staged ?? false });
  const report = diffReport(diff, before.model, after.model);
  if (flags.output === 'table') process.stdout.write(reportText(report, flags.limit, madeUp));
  else await printValue(report, flags);
  if (flags.exitCode && report.changes.length > 0) process.exitCode = exitCodes.failed;
}

function warnOfProblems(path: string, { policies }: OfflineModel): void {
  for (const { row, manifest, problems } of policies) {
    if (problems.length === 0) continue;
    const name = row === undefined ? manifest.name || '(without a name)' : policyName(row);
    process.stderr.write(
      `weir: ${manifest.file}: ${manifest.kind} ${name} of ${path} cannot be understood, so it closes what it selects: ${problems[0]}\n`,
    );
  }
}

function reportText({ policies, changes, nowDenied, nowAllowed }: DiffReport, limit: number, madeUp: boolean): string {
  const lines = policies.map(({ key, how }) => `${how.padEnd(8)} ${key}`);
  if (lines.length > limit) lines.splice(limit, lines.length, `and ${policies.length - limit} more policies`);
  if (policies.length > 0) lines.push('');
  lines.push(...changes.slice(0, limit).map(changeText));
  if (changes.length > limit) lines.push(`and ${changes.length - limit} more: give a higher --limit`);
  if (changes.length > 0) lines.push('');
  const pairs = (count: number): string => `${count} ${count === 1 ? 'pair' : 'pairs'} of ends`;
  lines.push(
    changes.length === 0 ? 'No connection changes.' : `${pairs(nowDenied)} may do less now, ${pairs(nowAllowed)} more.`,
  );
  if (madeUp)
    lines.push(
      'No pods were given: some were made up from the selectors. Name pods, workloads and namespaces with --pods to be exact.',
    );
  return `${lines.join('\n')}\n`;
}
