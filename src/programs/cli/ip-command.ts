// `weir ip`: which identity an address has, and how each node came to that answer.
import type { Command } from 'commander';
import { WeirError } from '../../core/errors.ts';
import type { AddressKind, IpcacheRow } from '../../core/rows.ts';
import { type Column, printRows } from './output.ts';
import { groupCommand, type QueryOptions, queryCommand } from './query-command.ts';

/** A row of a node's address table: an address, or a block for whatever in it has no row of its own. */
export interface AddressView extends IpcacheRow {
  readonly kind?: AddressKind;
  readonly namespace?: string;
  readonly pod?: string;
  readonly node?: string;
  readonly labels: readonly string[];
}

interface ClusterAddress extends Omit<AddressView, 'class' | 'ifindex' | 'endpointId' | 'flags'> {
  readonly prefix: boolean;
  readonly seenBy: string[];
}

/** `ip list` and `ip get`. */
export function ipCommand(): Command {
  const list = queryCommand('list', 'List addresses and blocks with the identity that nodes know them by.', [
    'weir ip list',
    'weir ip list --pod                # only of pods',
    'weir ip list --node-addresses     # only of nodes',
    'weir ip list --prefix             # only blocks',
  ])
    .option('--pod', 'addresses of pods')
    .option('--node-addresses', 'addresses of nodes')
    .option('--prefix', 'blocks')
    .action(listAddresses);
  const get = queryCommand('get', 'Show the identity of an address, by the longest prefix, as each node sees it.', [
    'weir ip get 10.244.1.7',
    'weir ip get 203.0.113.9   # outside the cluster: the longest block that contains it answers',
    'weir ip get fd00:10:244::4 --node node2',
  ])
    .argument('<address>', 'an IPv4 or IPv6 address')
    .action(async (address: string, options: QueryOptions) => {
      const { getAddress } = await import('./ip-lookup.ts');
      await getAddress(address, options);
    });
  return groupCommand(
    'ip',
    'Addresses and their identities.',
    [list, get],
    ['weir ip list             # every address that a policy can meet', 'weir ip get 10.244.0.7   # whose it is'],
  );
}

type ListOptions = QueryOptions & { pod?: boolean; nodeAddresses?: boolean; prefix?: boolean };

async function listAddresses(options: ListOptions): Promise<void> {
  const { askNodes } = await import('./ask-nodes.ts');
  const { labelsText } = await import('./display-units.ts');
  const answers = await askNodes<AddressView[]>(options, '/v1/addresses');
  const rows = new Map<string, ClusterAddress>();
  for (const { node, value } of answers) {
    for (const row of value ?? []) {
      const { class: _class, ifindex: _ifindex, endpointId: _id, flags: _flags, ...same } = row;
      const key = JSON.stringify([row.address, row.identity, row.kind, row.pod]);
      const known = rows.get(key);
      if (known !== undefined) known.seenBy.push(node);
      else rows.set(key, { ...same, prefix: row.address.includes('/'), seenBy: [node] });
    }
  }
  const chosen = options.pod || options.nodeAddresses || options.prefix;
  const shown = [...rows.values()]
    .filter(
      (row) =>
        !chosen ||
        (options.pod && row.kind === 'pod') ||
        (options.nodeAddresses && (row.kind === 'host' || row.kind === 'remote-node')) ||
        (options.prefix && row.prefix),
    )
    .sort((a, b) => Number(b.prefix) - Number(a.prefix) || compareAddresses(a.address, b.address));
  const columns: Column<ClusterAddress>[] = [
    { title: 'ADDRESS', value: (row) => row.address },
    { title: 'IDENTITY', value: (row) => row.identity, alignRight: true },
    { title: 'KIND', value: (row) => (row.prefix ? 'block' : row.kind) },
    { title: 'WHO', value: whoText, shrinkTo: 16 },
    { title: 'NODE', value: (row) => row.node, shrinkTo: 8 },
    {
      title: 'SEEN BY',
      value: (row) => (row.seenBy.length === answers.length ? 'all' : row.seenBy.join(',')),
      shrinkTo: 7,
    },
    { title: 'LABELS', value: (row) => labelsText(row.labels), wide: true },
  ];
  await printRows(columns, shown, options, 'No addresses.');
}

/** Who has an address, in a word. */
export function whoText(row: Pick<AddressView, 'pod' | 'namespace' | 'labels'>): string {
  if (row.pod !== undefined) return `${row.namespace}/${row.pod}`;
  return row.labels.map((label) => label.replace(/^reserved:/, '')).join(',');
}

/** Addresses in the order of their numbers rather than of their letters. */
function compareAddresses(a: string, b: string): number {
  if (a.includes(':') !== b.includes(':')) return a.includes(':') ? 1 : -1;
  return a.localeCompare(b, 'en', { numeric: true });
}

/** The message for what is not an address. */
export function notAnAddress(text: string): WeirError {
  return new WeirError('IP_INVALID', `"${text}" is not an address`);
}
