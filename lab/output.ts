// The lab's output formats: a table for people, JSON and YAML for programs.
import { stringify } from 'yaml';
import type { LabStatus } from './status.ts';

/** Text of a value in one of the formats; `table` gives the rows, the head first. */
export function printAs<T>(format: string, value: T, table: (value: T) => string[][]): string {
  if (format === 'json') return `${JSON.stringify(value, null, 2)}\n`;
  if (format === 'yaml') return stringify(value);
  return alignBlocks(table(value));
}

/** Aligns the columns of each block of rows; an empty row ends a block. */
export function alignBlocks(rows: readonly (readonly string[])[]): string {
  const end = rows.findIndex((row) => row.length === 0);
  if (end < 0) return alignColumns(rows);
  return `${alignColumns(rows.slice(0, end))}\n${alignBlocks(rows.slice(end + 1))}`;
}

/** Rows as lines, each column as wide as its widest cell. */
function alignColumns(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, column) => {
      widths[column] = Math.max(widths[column] ?? 0, cell.length);
    });
  }
  const line = (row: readonly string[]) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd();
  return rows.map((row) => `${line(row)}\n`).join('');
}

/** A lab's status for people. */
export function statusTable(status: LabStatus): string[][] {
  const pid = (each: number | null) => (each === null ? 'not running' : String(each));
  return [
    ['lab', `${status.name} (${status.phase}, ${status.ipFamily})`],
    ['kubeconfig', status.kubeconfig],
    ['API server', status.server],
    ['logs', `${status.folder}/logs`],
    ['flows', `weir observe --server unix:${status.relay.socket}`],
    ['world', status.world.addresses.join(' ')],
    [],
    ['NODE', 'READY', 'PROCESS 1', 'AGENT', 'ADDRESSES'],
    ...status.nodes.map((node) => [
      node.name,
      node.ready === null ? 'unknown' : node.ready ? 'yes' : 'no',
      pid(node.initPid),
      pid(node.agentPid),
      node.addresses.join(' '),
    ]),
    [],
    ['PART', 'PID'],
    ...[...status.controlPlane.processes, status.operator, status.relay].map((each) => [each.name, pid(each.pid)]),
  ];
}
