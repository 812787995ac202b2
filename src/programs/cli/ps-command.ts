// `weir ps`: what runs in which pod, and whom it talks to.
import type { Command } from 'commander';
import { WeirError } from '../../core/errors.ts';
import type { ProcessesView, ProcessView } from '../agent/processes-view.ts';
import { collect, wholeNumber } from './agent-command.ts';
import { printable } from './printable.ts';
import type { EventOptions } from './ps-events.ts';
import { type QueryOptions, queryCommand } from './query-command.ts';
import { addServerOptions, type ServerOptions } from './server-options.ts';

type PsOptions = QueryOptions &
  ServerOptions & { host?: boolean; talking?: boolean; events?: boolean } & Omit<EventOptions, 'host'>;

/** The command. */
export function psCommand(): Command {
  return addServerOptions(
    queryCommand('ps', 'Show what runs in which pod, and whom it talks to, as a tree.', [
      'weir ps                      # all pods of all nodes',
      'weir ps shop                 # pods of namespace shop',
      'weir ps shop/web-0           # one pod',
      'weir ps --host               # what runs beside the pods, and talks',
      'weir ps --events -f shop     # what begins and ends there, as it happens',
      'weir ps --events --server relay:4245 --tls-ca-cert-files ca.crt   # of a relay',
      'weir ps -o json | jq ".[].processes[].binary"',
    ]),
  )
    .argument('[pod]', 'NAMESPACE, or NAMESPACE/POD; a beginning of the pod’s name will do')
    .option('--host', 'processes of the nodes themselves, too')
    .option('--talking', 'only processes that talk to somebody')
    .option(
      '--binary <PATTERN>',
      'only these programs: a base name, a path or an exec id, * for any characters (repeat)',
      collect,
    )
    .option('--events', 'programs that began and processes that ended, instead of what runs')
    .option('-f, --follow', 'with --events: go on with new ones')
    .option(
      '--last <COUNT>',
      'with --events: the last ones (default: 20; none with --follow)',
      wholeNumber(1, 1_000_000),
    )
    .option('--since <TIME>', 'with --events: from then on: 30s, 5m, 2h ago, or a time such as 2026-11-22T17:30:00Z')
    .action(listProcesses);
}

/** Flags that would change nothing are a misunderstanding. */
function refuseMisfits(options: PsOptions): void {
  const { events, follow, last, since, talking, server } = options;
  if (!events && server !== undefined)
    throw new WeirError(
      'CONFIG_INVALID',
      'what runs now is asked of agents, not of a server',
      'Give --events as well, or leave out --server.',
    );
  if (!events && (follow || last !== undefined || since !== undefined))
    throw new WeirError(
      'CONFIG_INVALID',
      '--follow, --last and --since are of what happened',
      'Give --events as well, or leave them out.',
    );
  if (events && talking)
    throw new WeirError(
      'CONFIG_INVALID',
      '--talking is of what runs now',
      'Leave out --events; `weir observe --process` shows connections as they happen.',
    );
}

async function listProcesses(wanted: string | undefined, options: PsOptions): Promise<void> {
  refuseMisfits(options);
  if (options.events) {
    const { showProcessEvents } = await import('./ps-events.ts');
    process.exitCode = await showProcessEvents(wanted, options);
    return;
  }
  const { compileProcessPattern } = await import('../../observe/processes/process-pattern.ts');
  const programs = (options.binary ?? []).map((text) => {
    const match = compileProcessPattern(text);
    if (match === undefined) throw new WeirError('CONFIG_INVALID', '--binary is too long a pattern');
    return match;
  });
  const { askNodes } = await import('./ask-nodes.ts');
  const answers = await askNodes<ProcessesView>(options, '/v1/processes');
  const selected = answers.map(({ node, value }) => ({
    node,
    known: value?.known ?? false,
    processes: (value?.processes ?? []).filter(
      (each) =>
        isWanted(each, wanted, options.host ?? false) &&
        (!options.talking || each.talks.length > 0) &&
        (programs.length === 0 || programs.some((match) => match(each))),
    ),
  }));
  if (options.output !== 'table') {
    const { printValue } = await import('./output.ts');
    await printValue(selected, options);
    return;
  }
  const { terminalColumns } = await import('./output.ts');
  const width = options.wide ? undefined : terminalColumns();
  let lines = 0;
  for (const { node, known, processes } of selected) {
    if (!known) process.stderr.write(`weir: ${node} does not know its processes: see weir doctor there\n`);
    for (const line of treeLines(node, processes)) {
      process.stdout.write(`${width !== undefined && line.length > width ? `${line.slice(0, width - 1)}…` : line}\n`);
      lines++;
    }
  }
  if (lines === 0) process.stdout.write('No processes.\n');
}

function isWanted(row: ProcessView, wanted: string | undefined, host: boolean): boolean {
  if (row.containerId === undefined) return host && wanted === undefined;
  if (wanted === undefined) return true;
  const [namespace, pod = ''] = wanted.split('/');
  return row.namespace === namespace && (row.pod ?? '').startsWith(pod);
}

/** The lines of a node: pods, their containers, the processes in them below the one that made them. */
export function treeLines(node: string, processes: readonly ProcessView[]): string[] {
  const lines: string[] = [];
  const place = (row: ProcessView) =>
    row.containerId === undefined ? '' : `${row.namespace ?? '?'}/${row.pod ?? '?'}`;
  const byPod = Map.groupBy(processes, place);
  for (const pod of [...byPod.keys()].sort()) {
    lines.push(pod === '' ? `${node}: beside the pods` : `${node}: ${printable(pod)}`);
    const byContainer = Map.groupBy(byPod.get(pod)!, (row) => row.containerId ?? '');
    for (const rows of byContainer.values()) {
      const name = rows[0]!.containerId && (rows[0]!.container || `container ${rows[0]!.containerId.slice(0, 12)}`);
      if (name !== undefined)
        lines.push(`  ${printable(name)}${rows[0]!.image ? ` (${printable(rows[0]!.image)})` : ''}`);
      lines.push(...processLines(rows));
    }
  }
  return lines;
}

function processLines(rows: readonly ProcessView[]): string[] {
  const here = new Set(rows.map((row) => row.execId));
  const children = Map.groupBy(rows, (row) =>
    row.parentExecId !== undefined && here.has(row.parentExecId) ? row.parentExecId : '',
  );
  const lines: string[] = [];
  const walk = (id: string, depth: number) => {
    for (const row of (children.get(id) ?? []).toSorted((a, b) => a.pid - b.pid)) {
      const indent = '  '.repeat(depth + 2);
      lines.push(`${indent}${String(row.pid).padEnd(7)} ${printable(`${row.binary} ${row.arguments}`.trim())}`);
      for (const talk of row.talks)
        lines.push(
          `${indent}        ${talk.direction === 'outgoing' ? '→' : '←'} ${printable(talk.peer)}:${talk.port}` +
            `${talk.verdict === 'dropped' ? '  dropped' : ''}`,
        );
      walk(row.execId, depth + 1);
    }
  };
  walk('', 0);
  return lines;
}
