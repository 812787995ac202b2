// `weir service`: Services as the nodes serve them, and which backend a connection gets.
import type { Command } from 'commander';
import type { ServiceView } from '../agent/services-view.ts';
import { type Column, printRows } from './output.ts';
import { groupCommand, type QueryOptions, queryCommand } from './query-command.ts';

/** `service list`, `get` and `why`. */
export function serviceCommand(): Command {
  const list = queryCommand('list', 'List Services: where they are to be had, and how many backends serve them.', [
    'weir service list',
    'weir service list -n shop --wide   # with the algorithm and traffic policies',
    'weir service list --problems       # only those of which something is ignored',
    "weir service list -o json | jq '.[].frontends[].address'",
  ])
    .option('-n, --namespace <ns>', 'only Services of this namespace')
    .option('--problems', 'only those with a problem')
    .action(listServices);
  const get = queryCommand(
    'get',
    'Show one Service: its frontends, each with its backends, how far they serve and what they have to do.',
    [
      'weir service get shop/web',
      'weir service get shop/web --node node2   # as that node sees it',
      'weir service get shop/web -o json',
      "weir service get shop/web -o json | jq '.frontends[0].backends[] | {address, connections, open}'",
    ],
  )
    .argument('<service>', 'NAMESPACE/NAME')
    .action(async (service: string, options: QueryOptions) => {
      const { getService } = await import('./service-detail.ts');
      await getService(service, options);
    });
  const why = queryCommand('why', 'Say which backend a connection gets and why, by asking the datapath itself.', [
    'weir service why 10.244.1.7 10.96.0.10:53/udp        # a pod that asks the name server',
    'weir service why 198.51.100.9:40001 203.0.113.5:443  # a client outside, from this port',
    "weir service why fd00:10:244::7 '[fd00:10:96::a]:80'",
  ])
    .argument('<client>', 'ADDRESS or ADDRESS:PORT of who connects')
    .argument('<frontend>', 'ADDRESS:PORT, with /udp or /sctp where it is not TCP')
    .action(async (client: string, frontend: string, options: QueryOptions) => {
      const { explainPick } = await import('./service-why.ts');
      await explainPick(client, frontend, options);
    });
  return groupCommand(
    'service',
    'Services as the nodes serve them.',
    [list, get, why],
    [
      'weir service list                               # all of them, in short',
      'weir service get shop/web                       # who serves it, on which node',
      'weir service why 10.244.1.7 10.96.0.10:53/udp   # which backend, and why',
    ],
  );
}

async function listServices(options: QueryOptions & { namespace?: string; problems?: boolean }): Promise<void> {
  const { askNodes } = await import('./ask-nodes.ts');
  const { addressText, backendsText } = await import('./service-detail.ts');
  const answers = await askNodes<ServiceView[]>(options, '/v1/services');
  // Every node knows every Service; host ports are those of their own node.
  const rows = new Map<string, ServiceView>();
  for (const { value } of answers)
    for (const row of value ?? []) {
      const key = `${row.type === 'HostPort' ? row.node : ''} ${row.namespace}/${row.name}`;
      if (!rows.has(key)) rows.set(key, row);
    }
  const columns: Column<ServiceView>[] = [
    { title: 'NAMESPACE', value: (row) => row.namespace, shrinkTo: 9 },
    { title: 'NAME', value: (row) => row.name, shrinkTo: 12 },
    { title: 'TYPE', value: (row) => row.type },
    { title: 'ADDRESSES', value: addressText, shrinkTo: 24 },
    { title: 'SERVING', value: backendsText, alignRight: true },
    {
      title: 'ALGORITHM',
      value: (row) => [...new Set(row.frontends.map((each) => each.algorithm))].join(','),
      wide: true,
    },
    { title: 'INTERNAL', value: (row) => row.internalTrafficPolicy, wide: true },
    { title: 'EXTERNAL', value: (row) => row.externalTrafficPolicy, wide: true },
    {
      title: 'PROBLEM',
      value: (row) => row.problems[0] ?? row.frontends.find((each) => each.error)?.error,
      shrinkTo: 16,
    },
  ];
  const shown = [...rows.values()].filter(
    (row) =>
      (options.namespace === undefined || row.namespace === options.namespace) &&
      (!options.problems || row.problems.length > 0 || row.frontends.some((each) => each.error !== undefined)),
  );
  await printRows(columns, shown, options, 'No services.');
}
