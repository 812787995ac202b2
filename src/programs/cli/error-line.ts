// An error in the one line that people and scripts get: what, where, and what to do.
import type { WeirError } from '../../core/errors.ts';
import { printable } from './printable.ts';

/** The line, with its end. */
export function errorLine(error: WeirError): string {
  const what = printable(error.message.replace(/\s*\n\s*/g, '; ')).replace(/[.\s]+$/, '');
  return `weir: ${error.code}: ${what}. ${error.hint}\n`;
}
