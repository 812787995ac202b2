// `weir service get`: one Service, frontend by frontend.
import type { BackendView, FrontendView, ServiceView } from '../agent/services-view.ts';
import { askNodes, notFound } from './ask-nodes.ts';
import { durationText } from './display-units.ts';
import { type Column, printValue, tableText, terminalColumns } from './output.ts';
import type { QueryOptions } from './query-command.ts';

/** Prints the Service as the asked nodes see it: all of them in a machine's format, one for people. */
export async function getService(service: string, options: QueryOptions): Promise<void> {
  const key = service.includes('/') ? service : `default/${service}`;
  const answers = await askNodes<ServiceView>(options, `/v1/services/${encodeURIComponent(key)}`);
  const found = answers.flatMap((answer) => answer.value ?? []);
  if (found.length === 0) {
    const error = notFound(`no Service ${key}`, '`weir service list` shows those that have frontends.');
    if (error !== undefined) throw error;
    return;
  }
  if (options.output !== 'table') return printValue(found.length === 1 ? found[0] : found, options);
  process.stdout.write(detailText(found[0]!, options));
}

interface Line {
  readonly frontend: FrontendView;
  readonly backend?: BackendView;
  readonly first: boolean;
}

function detailText(row: ServiceView, options: QueryOptions): string {
  const facts: [string, string | number | undefined][] = [
    ['Service', `${row.namespace}/${row.name}`],
    ['Type', row.type],
    ['Seen from', row.node],
    ['Policies', `internal ${row.internalTrafficPolicy}, external ${row.externalTrafficPolicy}`],
    ['Affinity', row.affinitySeconds && `by client, for ${durationText(row.affinitySeconds)}`],
    ['Health', row.healthCheckNodePort && `port ${row.healthCheckNodePort}`],
    ...row.problems.map((problem): [string, string] => ['Problem', problem]),
  ];
  const lines = facts
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${`${name}:`.padEnd(11)} ${value}`);
  const rows = row.frontends.flatMap((frontend): Line[] =>
    frontend.backends.length === 0
      ? [{ frontend, first: true }]
      : frontend.backends.map((backend, i) => ({ frontend, backend, first: i === 0 })),
  );
  const once = (text: (frontend: FrontendView) => string) => (line: Line) => (line.first ? text(line.frontend) : ' ');
  const columns: Column<Line>[] = [
    { title: 'FRONTEND', value: once(frontendText) },
    { title: 'KIND', value: once((each) => each.kind) },
    { title: 'FOR', value: once((each) => each.scope) },
    { title: 'ALGORITHM', value: once((each) => each.algorithm) },
    { title: 'MODE', value: once((each) => (each.scope === 'outside' ? each.mode : ' ')), wide: true },
    { title: 'ONLY FROM', value: once((each) => each.sourceRanges?.join(',') ?? ' '), wide: true },
    { title: 'BACKEND', value: ({ backend }) => (backend ? endpointText(backend.address, backend.port) : 'nobody') },
    { title: 'STATE', value: ({ backend, frontend }) => frontend.error ?? backend?.state },
    { title: 'WHERE', value: ({ backend }) => backend && whereText(backend) },
    { title: 'CONNECTIONS', value: ({ backend }) => backend?.connections, alignRight: true },
    { title: 'OPEN', value: ({ backend }) => backend?.open, alignRight: true },
    { title: 'WEIGHT', value: ({ backend }) => backend?.weight, wide: true, alignRight: true },
  ];
  const table = tableText(columns, rows, { wide: options.wide, terminalColumns: terminalColumns() });
  return `${lines.join('\n')}\n\n${table}`;
}

/** The address and port, with brackets where they are needed. */
export function endpointText(address: string, port: number): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

/** Where a backend is, for people. */
export function whereText(backend: BackendView): string {
  const node = backend.nodeName === undefined ? '' : ` ${backend.nodeName}`;
  return backend.where === 'remote' ? (node === '' ? 'elsewhere' : node.trim()) : `here${node && ` (${node.trim()})`}`;
}

function frontendText(frontend: FrontendView): string {
  const any = frontend.address === '0.0.0.0' || frontend.address === '::';
  const address = any
    ? `(nodes, ${frontend.address === '::' ? 'IPv6' : 'IPv4'}):${frontend.port}`
    : endpointText(frontend.address, frontend.port);
  return `${address}/${frontend.protocol.toLowerCase()}`;
}

/** The addresses of a Service, once each, ports behind them. */
export function addressText(row: ServiceView): string {
  const ports = new Map<string, Set<string>>();
  for (const { address, port, protocol, scope, kind } of row.frontends) {
    if (kind === 'NodePort' && scope === 'outside') continue;
    const where =
      address === '0.0.0.0' || address === '::' ? 'nodes' : address.includes(':') ? `[${address}]` : address;
    const list = ports.get(where) ?? new Set<string>();
    ports.set(where, list.add(protocol === 'TCP' ? String(port) : `${port}/${protocol.toLowerCase()}`));
  }
  return [...ports].map(([where, list]) => `${where}:${[...list].join('+')}`).join(' ');
}

/** How many of the backends serve, such as 3/4. */
export function backendsText(row: ServiceView): string {
  const { all, serving } = backendAddresses([row]);
  return `${serving.size}/${all.size}`;
}

/** The backends of a service's views as `address port`, each once, and those of them that serve some frontend. */
export function backendAddresses(rows: readonly ServiceView[]): { all: Set<string>; serving: Set<string> } {
  const all = new Set<string>();
  const serving = new Set<string>();
  for (const { frontends } of rows)
    for (const { backends } of frontends)
      for (const { address, port, state } of backends) {
        all.add(`${address} ${port}`);
        if (state === 'serving') serving.add(`${address} ${port}`);
      }
  return { all, serving };
}
