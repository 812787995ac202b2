// `weir policy convert`: policies of one kind as another, where nothing is lost; else what would be.
import { stringify } from 'yaml';
import { exitCodes } from '../../../core/exit-codes.ts';
import { policyName } from '../../../core/rows.ts';
import { convertPolicy, type WrittenKind } from '../../../secure/policy/convert/convert-policy.ts';
import { formatPolicies } from '../../../secure/policy/format/format-policies.ts';
import { isPolicyManifest, policyObject } from '../../../secure/policy/manifests/offline-model.ts';
import { fields } from '../../../secure/policy/manifests/offline-pods.ts';
import { parsePolicy } from '../../../secure/policy/parse-policy.ts';
import { readObjects } from './read-files.ts';

/** The flags. */
export interface ConvertFlags {
  readonly to: WrittenKind;
  readonly force?: boolean;
  readonly namespace: string;
}

/** Runs the command. */
export function convertCommand(paths: readonly string[], { to, force, namespace }: ConvertFlags): void {
  const texts: string[] = [];
  const say = (text: string): void => void process.stderr.write(`weir: ${text}\n`);
  for (const manifest of readObjects(paths).filter(isPolicyManifest)) {
    const { row, problems } = parsePolicy(policyObject(manifest, namespace))!;
    const at = (path: string): string => {
      const { line, column } = manifest.place(path);
      return `${manifest.file}:${line}:${column}`;
    };
    if (row === undefined || problems.length > 0) {
      for (const problem of problems) say(`${at(problem)}: ${problem}`);
      process.exitCode = exitCodes.failed;
      continue;
    }
    const { manifests, losses } = convertPolicy(row, to, fields(manifest.value.metadata), namespace);
    for (const { path, why } of losses) say(`${at(path)}: ${path}: ${why}`);
    if (losses.length > 0 && !force) {
      say(
        `${row.kind} ${policyName(row)} is not converted: it would lose what is named above; --force converts it all the same`,
      );
      process.exitCode = exitCodes.failed;
      continue;
    }
    texts.push(...manifests.map((each) => stringify(each, { lineWidth: 0 })));
  }
  const formatted = formatPolicies(texts.join('---\n'));
  if (texts.length > 0) process.stdout.write(formatted.ok ? formatted.text : texts.join('---\n'));
}
