// `weir policy fmt`: writes policies the one way they are written.
import { writeFileSync } from 'node:fs';
import { exitCodes } from '../../../core/exit-codes.ts';
import { formatPolicies } from '../../../secure/policy/format/format-policies.ts';
import { readFiles } from './read-files.ts';

/** The flags. */
export interface FmtFlags {
  readonly check?: boolean;
  readonly write?: boolean;
}

/** Runs the command. */
export function fmtCommand(paths: readonly string[], { check, write }: FmtFlags): void {
  for (const { file, text } of readFiles(paths)) {
    const formatted = formatPolicies(text, file.endsWith('.json'));
    if (!formatted.ok) {
      process.stderr.write(`weir: ${file}: ${formatted.message}\n`);
      process.exitCode = exitCodes.failed;
      continue;
    }
    const same = formatted.text === text;
    if (check) {
      if (same) continue;
      process.stdout.write(`${file}\n`);
      process.exitCode = exitCodes.failed;
    } else if (write && file !== '<stdin>') {
      if (same) continue;
      writeFileSync(file, formatted.text);
      process.stdout.write(`${file}\n`);
    } else process.stdout.write(formatted.text);
  }
}
