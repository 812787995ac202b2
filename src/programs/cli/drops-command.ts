// `weir drops`: what was dropped since the maps were made, by reason, with what it means and what to do.
import type { Command } from 'commander';
import { type Column, printValue, tableText } from './output.ts';
import { type QueryOptions, queryCommand } from './query-command.ts';

interface DropsOfNode {
  readonly reason: string;
  readonly number: number;
  readonly packets: number;
  readonly bytes: number;
  readonly meaning: string;
  readonly action: string;
}

interface DropView extends DropsOfNode {
  readonly nodes: Record<string, { packets: number; bytes: number }>;
}

/** The command. */
export function dropsCommand(): Command {
  return queryCommand('drops', 'Show dropped packets by reason, with what each means and what to do.', [
    'weir drops',
    'weir drops --node node1',
    'weir drops -o json | jq \'.[] | select(.reason == "POLICY_DENIED").packets\'',
    'weir observe --verdict dropped   # who it was: the flows behind the numbers',
  ]).action(showDrops);
}

async function showDrops(options: QueryOptions): Promise<void> {
  const { askNodes } = await import('./ask-nodes.ts');
  const { bytesText } = await import('./display-units.ts');
  const answers = await askNodes<DropsOfNode[]>(options, '/v1/drops');
  const byReason = new Map<string, DropView>();
  for (const { node, value } of answers) {
    for (const row of value ?? []) {
      const { packets, bytes } = row;
      const before = byReason.get(row.reason);
      byReason.set(row.reason, {
        ...row,
        packets: packets + (before?.packets ?? 0),
        bytes: bytes + (before?.bytes ?? 0),
        nodes: { ...before?.nodes, [node]: { packets, bytes } },
      });
    }
  }
  const rows = [...byReason.values()].sort((a, b) => b.packets - a.packets);
  if (options.output !== 'table') return printValue(rows, options);
  if (rows.length === 0) {
    if (answers.length > 0) process.stdout.write('Nothing was dropped.\n');
    return;
  }
  const columns: Column<DropView>[] = [
    { title: 'REASON', value: (row) => row.reason },
    { title: 'PACKETS', value: (row) => row.packets, alignRight: true },
    { title: 'BYTES', value: (row) => bytesText(row.bytes), alignRight: true },
    {
      title: 'ON',
      value: (row) =>
        Object.entries(row.nodes)
          .map(([node, { packets }]) => `${node} ${packets}`)
          .join(', '),
    },
  ];
  const [head, ...lines] = tableText(columns, rows).trimEnd().split('\n');
  process.stdout.write(`${head}\n`);
  for (const [i, line] of lines.entries())
    process.stdout.write(`${line}\n  means: ${rows[i]!.meaning}\n  to do: ${rows[i]!.action}\n`);
}
