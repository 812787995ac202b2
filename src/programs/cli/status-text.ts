// Prints agents' status for people. The order is the order of questions: is it well, what is wrong, what waits.
import { exitCodes } from '../../core/exit-codes.ts';
import type { FlowStatus as ObserverStatus } from '../../observe/flows/flow-observer.ts';
import type { FlowNetworkStatus } from '../agent/flow-listener.ts';
import type { StatusView } from '../agent/status-view.ts';
import { askNodes } from './ask-nodes.ts';
import { bytesText, durationText, percentText } from './display-units.ts';
import { type Column, printValue, tableText, terminalColumns } from './output.ts';
import type { QueryOptions } from './query-command.ts';

/** What an agent says of its flows. */
type FlowStatus = ObserverStatus & { readonly network?: FlowNetworkStatus };

/** What is printed for one node. */
export type NodeStatus = StatusView & { readonly flows?: FlowStatus };

/** Asks and prints. Sets exit code 1 when a node is unhealthy, unless one did not answer at all: that is 4. */
export async function showStatus(options: QueryOptions & { brief?: boolean }): Promise<void> {
  const answers = await askNodes<StatusView>(options, '/v1/status');
  const flows = new Map<string, FlowStatus | undefined>();
  if (answers.length > 0 && !options.brief) {
    for (const { node } of answers) {
      const target = options.socket === undefined ? { ...options, node } : options;
      for (const answer of await askNodes<FlowStatus>(target, '/v1/flow-status')) flows.set(node, answer.value);
    }
  }
  const nodes = answers.flatMap(({ node, value }): NodeStatus[] =>
    value === undefined ? [] : [{ ...value, flows: flows.get(node) }],
  );
  if (nodes.some((node) => !node.healthy)) process.exitCode ??= exitCodes.failed;
  if (options.output !== 'table')
    return printValue(
      options.brief
        ? nodes.map(({ node, healthy, problems, warnings = [] }) => ({ node, healthy, problems, warnings }))
        : nodes,
      options,
    );
  for (const node of nodes) process.stdout.write(summaryText(node));
  if (options.brief) return;
  for (const node of nodes)
    process.stdout.write(`\n${nodeText(node, { wide: options.wide, terminalColumns: terminalColumns() })}`);
}

/** A node in one line, and one more for each problem. */
function summaryText(status: NodeStatus): string {
  const pods = status.tables.find((table) => table.name === 'endpoints')?.rows ?? 0;
  const state = status.healthy ? 'healthy' : 'UNHEALTHY';
  const facts = [`${pods} pods`, `up ${durationText(status.uptimeSeconds)}`, `agent ${status.version}`];
  return `${status.node}: ${state} (${facts.join(', ')})\n${status.problems.map((each) => `  ! ${each}\n`).join('')}${(status.warnings ?? []).map((each) => `  ~ ${each}\n`).join('')}`;
}

type TableOptions = { readonly wide?: boolean; readonly terminalColumns?: number };

/** Everything about a node. */
function nodeText(status: NodeStatus, options: TableOptions): string {
  const { apiServer, sync, ipam, flows, counters } = status;
  const following = apiServer.watches.filter((watch) => watch.connected).length;
  const facts: [string, string][] = [
    [
      'API server',
      `${apiServer.server}, ${apiServer.connected ? 'connected' : 'NOT CONNECTED'}: following ${following} of ${apiServer.watches.length} resources`,
    ],
    [
      'Kernel',
      sync.synced
        ? `in step, ${sync.passes} passes so far, the last took ${sync.lastMs.toFixed(1)} ms`
        : 'not in step yet: the first complete state has not been read',
    ],
    ['Agent', `memory ${bytesText(status.memoryBytes)}, started ${status.startedAt}`],
    ...ipam.pools.map((pool): [string, string] => [
      'Addresses',
      `${pool.cidr}: ${pool.used} of ${pool.capacity} used (${percentText(pool.used, pool.capacity)}), ${pool.resting} resting`,
    ]),
    ...ipam.leaks.map((lease): [string, string] => [
      'Leak',
      `${lease.address} is taken, but no pod has it (${lease.owner})`,
    ]),
    ...(flows === undefined
      ? []
      : [
          [
            'Flows',
            `${flows.flows} of ${flows.capacity} kept, ${flows.flowsPerSecond}/s; lost ${flows.lostInKernel}, held back ${flows.heldBack}`,
          ] as [string, string],
          ...(flows.network === undefined ? [] : [['Flow API', networkText(flows.network)] as [string, string]]),
        ]),
  ];
  const lines = facts.map(([name, text]) => `  ${`${name}:`.padEnd(12)}${text}\n`);
  return [
    `Node ${status.node}\n`,
    ...lines,
    section('Tables', tableColumns, status.tables, options),
    section('Reconcilers', reconcilerColumns, status.reconcilers, options),
    ...status.reconcilers.flatMap((each) =>
      each.unfinished.map((row) => {
        const what = row.error === undefined ? 'waits' : `fails, ${row.attempts} tries: ${row.error}`;
        return `    ${each.name} ${row.operation} ${row.key}: ${what}\n`;
      }),
    ),
    section('Maps', mapColumns, status.maps, options),
    ...status.maps.flatMap((map) =>
      map.failing.map((row) => `    ${map.name} ${row.row}: fails, ${row.attempts} tries: ${row.error}\n`),
    ),
    section('Programs', programColumns(status), status.programs, options),
    section(
      'Counters',
      counterColumns,
      Object.entries(counters).map(([name, value]) => ({ name, value })),
      options,
    ),
  ].join('');
}

function networkText({ address, tls, reason, certificateEnds, problem }: FlowNetworkStatus): string {
  if (address === undefined) return `unix socket only: ${reason ?? 'not asked for'}`;
  const how = tls ? `mutual TLS, certificate until ${certificateEnds?.slice(0, 10)}` : 'IN THE CLEAR';
  return `${address} (${how})${problem === undefined ? '' : `; the certificate’s files cannot be used: ${problem}`}`;
}

function section<R>(title: string, columns: readonly Column<R>[], rows: readonly R[], options: TableOptions): string {
  if (rows.length === 0) return '';
  const width = options.terminalColumns === undefined ? undefined : options.terminalColumns - 4;
  const text = tableText(columns, rows, { ...options, terminalColumns: width });
  return `\n  ${title}\n${text.replace(/^(?=.)/gm, '    ')}`;
}

const tableColumns: Column<StatusView['tables'][number]>[] = [
  { title: 'NAME', value: (row) => row.name },
  { title: 'ROWS', value: (row) => row.rows, alignRight: true },
  { title: 'REVISION', value: (row) => row.revision, alignRight: true },
  { title: 'READ', value: (row) => (row.initialized ? 'yes' : 'NOT YET') },
];
const reconcilerColumns: Column<StatusView['reconcilers'][number]>[] = [
  { title: 'NAME', value: (row) => row.name },
  { title: 'DONE', value: (row) => row.done, alignRight: true },
  { title: 'WAITING', value: (row) => row.pending, alignRight: true },
  { title: 'FAILING', value: (row) => row.error, alignRight: true },
  { title: 'PRUNED', value: (row) => (row.pruned.done ? 'yes' : (row.pruned.error ?? 'not yet')), shrinkTo: 10 },
];
const mapColumns: Column<StatusView['maps'][number]>[] = [
  { title: 'NAME', value: (row) => row.name },
  { title: 'ROWS', value: (row) => row.rows, alignRight: true },
  { title: 'CAPACITY', value: (row) => row.capacity, alignRight: true },
  { title: 'FULL', value: (row) => percentText(row.rows, row.capacity), alignRight: true },
  { title: 'FAILING', value: (row) => row.failing.length, alignRight: true },
  {
    title: 'AT START',
    value: ({ adopted }) =>
      `${adopted.same} kept, ${adopted.changed} changed, ${adopted.added} added, ${adopted.pruned} removed`,
    wide: true,
  },
];
const counterColumns: Column<{ name: string; value: number }>[] = [
  { title: 'NAME', value: (row) => row.name },
  { title: 'SINCE THE MAPS WERE MADE', value: (row) => row.value, alignRight: true },
];

function programColumns(status: NodeStatus): Column<StatusView['programs'][number]>[] {
  return [
    { title: 'NAME', value: (row) => row.name },
    { title: 'ID', value: (row) => row.id, alignRight: true },
    {
      title: 'ATTACHED',
      value: (row) => status.attachments.filter((each) => each.programId === row.id).length,
      alignRight: true,
    },
    { title: 'VERIFIED INSTRUCTIONS', value: (row) => row.verifiedInstructions, alignRight: true },
    { title: 'CODE', value: (row) => bytesText(row.jitedBytes), alignRight: true },
  ];
}
