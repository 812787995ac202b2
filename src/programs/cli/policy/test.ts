// `weir policy test`: runs suites of assertions about who may talk with whom.
import { dirname, resolve } from 'node:path';
import { WeirError } from '../../../core/errors.ts';
import { exitCodes } from '../../../core/exit-codes.ts';
import { offlineModel } from '../../../secure/policy/manifests/offline-model.ts';
import { type ReadSuite, readSuite } from '../../../secure/policy/suite/read-suite.ts';
import { type AssertionResult, runSuite } from '../../../secure/policy/suite/run-suite.ts';
import { junitText, type SuiteResult, tapText } from '../../../secure/policy/suite/suite-report.ts';
import { printValue } from '../output.ts';
import { namespacesNamed, whyText } from '../policy-why.ts';
import { readFiles, readObjects } from './read-files.ts';

/** The flags. */
export interface TestFlags {
  readonly output: 'table' | 'json' | 'yaml' | 'tap' | 'junit';
  readonly file?: readonly string[];
  readonly pods?: readonly string[];
  readonly node?: string;
}

/** Runs the command. */
export async function testCommand(paths: readonly string[], flags: TestFlags): Promise<void> {
  const suites = readFiles(paths).map(({ file, text }): SuiteResult => {
    const suite = readSuite(text);
    const [problem] = suite.problems;
    if (problem !== undefined)
      throw new WeirError(
        'CONFIG_INVALID',
        `${file}:${problem.line}: ${problem.message}`,
        '`weir policy test --help` shows how a suite is written.',
      );
    return { file, results: resultsOf(file, suite, flags) };
  });
  const failed = suites.flatMap(({ results }) => results).some(({ ok }) => !ok);
  if (flags.output === 'tap') process.stdout.write(tapText(suites, explanation));
  else if (flags.output === 'junit') process.stdout.write(junitText(suites, explanation));
  else if (flags.output === 'table') process.stdout.write(suitesText(suites));
  else await printValue(suites, { output: flags.output });
  if (failed) process.exitCode = exitCodes.failed;
}

function resultsOf(file: string, suite: ReadSuite, { file: more = [], pods = [], node }: TestFlags): AssertionResult[] {
  const besideIt = (path: string): string => (file === '<stdin>' ? path : resolve(dirname(file), path));
  const files = [...suite.pods.map(besideIt), ...pods, ...suite.policies.map(besideIt), ...more];
  if (files.length === 0) {
    throw new WeirError(
      'CONFIG_INVALID',
      `${file} names no policies`,
      'Write policies: [path] into it, or give --file.',
    );
  }
  const namespaces = namespacesNamed(...suite.tests.flatMap(({ from, to }) => [from, to]));
  const offline = offlineModel(readObjects([...new Set(files)]), { namespaces, ...(node !== undefined && { node }) });
  for (const { manifest, problems } of offline.policies) {
    if (problems.length > 0)
      process.stderr.write(
        `weir: ${manifest.file}: ${manifest.kind} ${manifest.name} closes what it selects, for it cannot be understood: ${problems[0]}\n`,
      );
  }
  return runSuite(offline.model, offline.services, suite.tests);
}

function explanation({ why, problem, expect, got }: AssertionResult): string {
  return problem === undefined ? `expected ${expect}, got ${got}\n${whyText(why!)}` : problem;
}

function suitesText(suites: readonly SuiteResult[]): string {
  const lines = suites.flatMap(({ file, results }) => [
    file,
    ...results.flatMap((result) => [
      `  ${result.ok ? 'ok    ' : 'FAILED'} ${result.name}`,
      ...(result.ok
        ? []
        : explanation(result)
            .trimEnd()
            .split('\n')
            .map((line) => `           ${line}`)),
    ]),
  ]);
  const all = suites.flatMap(({ results }) => results);
  const failed = all.filter(({ ok }) => !ok).length;
  return `${[...lines, '', `${all.length - failed} passed, ${failed} failed`].join('\n')}\n`;
}
