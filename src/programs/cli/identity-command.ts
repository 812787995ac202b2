// `weir identity`: what the numbers in flows and policy stand for, and which pods have them.
import { Argument, type Command } from 'commander';
import type { IdentityRow } from '../../core/rows.ts';
import { wholeNumber } from './agent-command.ts';
import type { AddressView } from './ip-command.ts';
import { type Column, printRows, printValue } from './output.ts';
import { groupCommand, type QueryOptions, queryCommand } from './query-command.ts';

/** `identity list` and `identity get`. */
export function identityCommand(): Command {
  const list = queryCommand('list', 'List identities: the reserved ones and those that pods have.', [
    'weir identity list',
    'weir identity list --wide   # with every label',
    "weir identity list -o json | jq '.[] | select(.id > 255)'",
  ]).action(listIdentities);
  const get = queryCommand('get', 'Show what a number stands for, and who has it.', [
    'weir identity get 264',
    'weir identity get 2      # a reserved one: the world outside the cluster',
  ])
    .addArgument(new Argument('<number>', 'the identity').argParser(wholeNumber(1, 16_777_215)))
    .action(getIdentity);
  return groupCommand(
    'identity',
    'Identities: numbers that stand for labels.',
    [list, get],
    ['weir identity list       # all, with their labels', 'weir identity get 256    # one'],
  );
}

async function identities(options: QueryOptions): Promise<IdentityRow[]> {
  const { askNodes } = await import('./ask-nodes.ts');
  const byId = new Map<number, IdentityRow>();
  for (const { value } of await askNodes<IdentityRow[]>(options, '/v1/identities'))
    for (const row of value ?? []) byId.set(row.id, row);
  return [...byId.values()].sort((a, b) => a.id - b.id);
}

async function listIdentities(options: QueryOptions): Promise<void> {
  const { labelsText, namespaceOf } = await import('./display-units.ts');
  const columns: Column<IdentityRow>[] = [
    { title: 'IDENTITY', value: (row) => row.id, alignRight: true },
    { title: 'NAMESPACE', value: (row) => namespaceOf(row.labels), shrinkTo: 9 },
    {
      title: 'LABELS',
      value: (row) => (options.wide ? row.labels.join(',') : labelsText(row.labels)),
      shrinkTo: 20,
    },
  ];
  await printRows(columns, await identities(options), options, 'No identities.');
}

async function getIdentity(number: number, options: QueryOptions): Promise<void> {
  const { askNodes, notFound } = await import('./ask-nodes.ts');
  const identity = (await identities(options)).find((row) => row.id === number);
  if (identity === undefined) {
    const error = notFound(`no identity ${number}`, '`weir identity list` shows what there is.');
    if (error !== undefined) throw error;
    return;
  }
  const addresses = new Map<string, AddressView>();
  for (const { value } of await askNodes<AddressView[]>(options, '/v1/addresses'))
    for (const row of value ?? []) if (row.identity === number) addresses.set(row.address, row);
  const pods = new Set([...addresses.values()].flatMap((row) => (row.pod ? [`${row.namespace}/${row.pod}`] : [])));
  const detail = { ...identity, pods: [...pods].sort(), addresses: [...addresses.keys()] };
  if (options.output !== 'table') return printValue(detail, options);
  const list = (title: string, lines: readonly string[]) =>
    lines.length === 0 ? '' : `${title}:\n${lines.map((line) => `  ${line}\n`).join('')}`;
  process.stdout.write(
    `Identity ${number}\n${list('Labels', detail.labels)}${list('Pods', detail.pods)}${list('Addresses', detail.addresses)}`,
  );
}
