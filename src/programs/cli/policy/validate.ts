// `weir policy validate`: what is wrong or odd with the policies of files.
import { WeirError } from '../../../core/errors.ts';
import { exitCodes } from '../../../core/exit-codes.ts';
import { findingText } from '../../../secure/policy/lint/findings.ts';
import { sarifLog } from '../../../secure/policy/lint/sarif.ts';
import { type Validation, validatePolicies } from '../../../secure/policy/lint/validate.ts';
import { printValue } from '../output.ts';
import { version } from '../version.ts';
import { readFiles, readObjects } from './read-files.ts';

/** The flags. */
export interface ValidateFlags {
  readonly output: 'table' | 'json' | 'yaml' | 'sarif';
  readonly pods?: readonly string[];
  readonly strict?: boolean;
}

/** Runs the command. */
export async function validateCommand(paths: readonly string[], flags: ValidateFlags): Promise<void> {
  const validation = validatePolicies(readFiles(paths), readObjects(flags.pods ?? []));
  const { findings, policies } = validation;
  if (policies === 0 && findings.length === 0) {
    throw new WeirError(
      'NOT_FOUND',
      `there is no policy in ${paths.join(', ')}`,
      'Give files or folders with policies.',
    );
  }
  if (flags.output === 'sarif') await printValue(sarifLog(findings, version), { output: 'json' });
  else if (flags.output !== 'table') await printValue(findings, { output: flags.output });
  else process.stdout.write(validationText(validation));
  const failing = findings.some(({ severity }) => severity === 'error' || flags.strict);
  if (failing) process.exitCode = exitCodes.failed;
}

function validationText({ findings, policies, files }: Validation): string {
  const errors = findings.filter(({ severity }) => severity === 'error').length;
  const count = (number: number, word: string): string => `${number} ${word}${number === 1 ? '' : 's'}`;
  const lines = findings.map(findingText);
  const sum = `${policies} ${policies === 1 ? 'policy' : 'policies'} in ${count(files, 'file')}: ${count(errors, 'error')}, ${count(findings.length - errors, 'warning')}`;
  return `${[...lines, sum].join('\n')}\n`;
}
