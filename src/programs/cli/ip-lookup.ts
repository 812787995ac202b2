// `weir ip get`: the answer of the address table, as the datapath finds it: the exact address, else the longest block.
import { type Cidr, cidrContains, formatAddress, parseAddress, parseCidr } from '../../core/ip.ts';
import { askNodes, notFound } from './ask-nodes.ts';
import { labelsText } from './display-units.ts';
import { type AddressView, notAnAddress, whoText } from './ip-command.ts';
import { type Column, printRows } from './output.ts';
import type { QueryOptions } from './query-command.ts';

/** A node's answer for one address. */
export interface LookupAnswer extends AddressView {
  readonly asked: string;
  /** The node that answers so. */
  readonly by: string;
  /** `exact`, or `prefix` when only a block contains the address. */
  readonly match: 'exact' | 'prefix';
  /** Shorter blocks that contain it too, longest first: what would answer without this row. */
  readonly behind: readonly { readonly address: string; readonly identity: number }[];
}

/** The row that answers for an address, and the blocks behind it. */
export function lookup(
  address: string,
  rows: readonly AddressView[],
): Pick<LookupAnswer, 'match' | 'behind'> & { row: AddressView } {
  const parsed = parseAddress(address);
  if (!parsed.ok) throw notAnAddress(address);
  const exact = rows.find((row) => row.address === formatAddress(parsed.value));
  const blocks: { row: AddressView; cidr: Cidr }[] = [];
  for (const row of rows) {
    if (!row.address.includes('/')) continue;
    const cidr = parseCidr(row.address);
    if (cidr.ok && cidrContains(cidr.value, parsed.value)) blocks.push({ row, cidr: cidr.value });
  }
  blocks.sort((a, b) => b.cidr.prefixBits - a.cidr.prefixBits);
  const chain = [...(exact === undefined ? [] : [exact]), ...blocks.map((each) => each.row)];
  const [row, ...behind] = chain;
  return {
    row: row!,
    match: exact === undefined ? 'prefix' : 'exact',
    behind: behind.map((each) => ({ address: each.address, identity: each.identity })),
  };
}

/** Prints each node's answer. */
export async function getAddress(text: string, options: QueryOptions): Promise<void> {
  const parsed = parseAddress(text);
  if (!parsed.ok) throw notAnAddress(text);
  const address = formatAddress(parsed.value);
  const answers: LookupAnswer[] = [];
  for (const { node, value } of await askNodes<AddressView[]>(options, '/v1/addresses')) {
    const { row, match, behind } = lookup(address, value ?? []);
    if (row !== undefined) answers.push({ asked: address, by: node, match, ...row, behind });
  }
  if (answers.length === 0) {
    const error = notFound(`no node knows ${address}`, 'The agents may still be starting: see `weir status`.');
    if (error !== undefined) throw error;
    return;
  }
  const columns: Column<LookupAnswer>[] = [
    { title: 'SEEN BY', value: (row) => row.by },
    { title: 'MATCH', value: (row) => row.address },
    { title: 'IDENTITY', value: (row) => row.identity, alignRight: true },
    { title: 'CLASS', value: (row) => row.class, alignRight: true },
    { title: 'WHO', value: whoText, shrinkTo: 16 },
    { title: 'NODE', value: (row) => row.node },
    { title: 'LABELS', value: (row) => labelsText(row.labels), shrinkTo: 12 },
    { title: 'BEHIND', value: (row) => row.behind.map((each) => each.address).join(' '), wide: true },
  ];
  await printRows(columns, answers, options, '');
}
