// How answers are printed: `-o json|yaml` with the API's own field names, `-o table` for people. Tables fit the terminal
// they are printed on; into a pipe, and with --wide, nothing is cut.

import type { Command } from 'commander';
import { Option } from 'commander';
import { printable } from './printable.ts';

/** A column of a table. */
export interface Column<R> {
  readonly title: string;
  readonly value: (row: R) => string | number | undefined;
  /** Only with --wide. */
  readonly wide?: boolean;
  /** May be cut down to so many characters to make the line fit. */
  readonly shrinkTo?: number;
  readonly alignRight?: boolean;
}

/** The values of the flags that `addOutputOptions` adds. */
export interface OutputOptions {
  readonly output: 'table' | 'json' | 'yaml';
  readonly wide?: boolean;
}

/** Adds -o alone, with more formats than all have. */
export function addFormat(command: Command, more: readonly string[] = []): Command {
  const formats = ['table', 'json', 'yaml', ...more];
  return command.addOption(new Option('-o, --output <format>', 'how to print').choices(formats).default('table'));
}

/** Adds -o and --wide to a command. */
export function addOutputOptions(command: Command): Command {
  return addFormat(command).option('--wide', 'more columns, and none cut to fit the terminal');
}

/** Characters of a line; undefined when there is no terminal to fit. */
export function terminalColumns(): number | undefined {
  return process.stdout.isTTY ? process.stdout.columns : undefined;
}

const gap = '  ';

/** The text of a cell: names come from others, and a terminal obeys control characters. */
function cellText(value: string | number | undefined): string {
  return value === undefined || value === '' ? '-' : printable(String(value));
}

function cut(text: string, width: number): string {
  return text.length <= width ? text : `${text.slice(0, Math.max(0, width - 1))}…`;
}

/** A table with its head; `columns` of the terminal, undefined for no limit. */
export function tableText<R>(
  columns: readonly Column<R>[],
  rows: readonly R[],
  options: { readonly wide?: boolean; readonly terminalColumns?: number } = {},
): string {
  const shown = columns.filter((column) => options.wide || !column.wide);
  const cells = rows.map((row) => shown.map((column) => cellText(column.value(row))));
  const widths = shown.map((column, i) => Math.max(column.title.length, ...cells.map((line) => line[i]!.length)));
  if (!options.wide && options.terminalColumns !== undefined)
    fit(
      widths,
      shown.map((column) => column.shrinkTo),
      options.terminalColumns,
    );
  const line = (texts: readonly string[]) =>
    texts
      .map((text, i) => {
        const short = cut(text, widths[i]!);
        return shown[i]!.alignRight ? short.padStart(widths[i]!) : short.padEnd(widths[i]!);
      })
      .join(gap)
      .trimEnd();
  return `${[line(shown.map((column) => column.title)), ...cells.map(line)].join('\n')}\n`;
}

/** Takes from the widest column that may give, until the line fits or none may. */
function fit(widths: number[], least: readonly (number | undefined)[], columns: number): void {
  let over = widths.reduce((sum, width) => sum + width, gap.length * (widths.length - 1)) - columns;
  while (over > 0) {
    let widest = -1;
    for (const [i, width] of widths.entries())
      if (width > (least[i] ?? width) && (widest < 0 || width > widths[widest]!)) widest = i;
    if (widest < 0) return;
    widths[widest]!--;
    over--;
  }
}

/** Prints rows as the flags say. `none` is what a table says when there are none. */
export async function printRows<R>(
  columns: readonly Column<R>[],
  rows: readonly R[],
  options: OutputOptions,
  none: string,
): Promise<void> {
  if (options.output !== 'table') return printValue(rows, options);
  if (rows.length === 0) process.stderr.write(`${none}\n`);
  else process.stdout.write(tableText(columns, rows, { wide: options.wide, terminalColumns: terminalColumns() }));
}

/** Prints a value whole, as JSON or YAML. */
export async function printValue(value: unknown, options: Pick<OutputOptions, 'output'>): Promise<void> {
  if (options.output === 'yaml') {
    const { stringify } = await import('yaml');
    // Through JSON: what is undefined there has no field here either.
    process.stdout.write(stringify(JSON.parse(JSON.stringify(value)), { lineWidth: 0, aliasDuplicateObjects: false }));
  } else process.stdout.write(`${JSON.stringify(value, undefined, 2)}\n`);
}
