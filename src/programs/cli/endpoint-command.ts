// `weir endpoint`: the pods of nodes as Weir knows them, and the policy that holds for one.
import type { Command } from 'commander';
import type { EndpointView } from '../agent/api-routes.ts';
import { type Column, printRows } from './output.ts';
import { groupCommand, type QueryOptions, queryCommand } from './query-command.ts';

/** `endpoint list` and `endpoint get`. */
export function endpointCommand(): Command {
  const list = queryCommand('list', 'List the pods of the nodes with addresses, identity and state.', [
    'weir endpoint list',
    'weir endpoint list -n storefront --node node1   # one namespace on one node',
    'weir endpoint list --wide                       # with labels, devices and MAC addresses',
    "weir endpoint list -o json | jq '.[].ipv4'",
  ])
    .option('-n, --namespace <ns>', 'only pods of this namespace')
    .action(listEndpoints);
  const get = queryCommand('get', 'Show one pod, and what its policy allows and denies by which rule.', [
    'weir endpoint get storefront/web-54f5458f9f-gq7sr',
    'weir endpoint get 4 --node node1               # by number; numbers count per node',
    'weir endpoint get storefront/web-54f5458f9f-gq7sr -o json',
  ])
    .argument('<pod>', 'NAMESPACE/POD, or the number of an endpoint')
    .action(async (pod: string, options: QueryOptions) => {
      const { getEndpoint } = await import('./endpoint-detail.ts');
      await getEndpoint(pod, options);
    });
  return groupCommand(
    'endpoint',
    'Pods of nodes as Weir knows them.',
    [list, get],
    [
      'weir endpoint list                   # pods, their addresses and identities',
      'weir endpoint get storefront/web-0   # what holds for one',
    ],
  );
}

async function listEndpoints(options: QueryOptions & { namespace?: string }): Promise<void> {
  const { askNodes } = await import('./ask-nodes.ts');
  const { labelsText } = await import('./display-units.ts');
  const columns: Column<EndpointView>[] = [
    { title: 'NODE', value: (row) => row.node, shrinkTo: 8 },
    { title: 'ID', value: (row) => row.id, alignRight: true },
    { title: 'NAMESPACE', value: (row) => row.namespace, shrinkTo: 9 },
    { title: 'POD', value: (row) => row.pod, shrinkTo: 12 },
    { title: 'IPV4', value: (row) => row.ipv4 },
    { title: 'IPV6', value: (row) => row.ipv6 },
    { title: 'IDENTITY', value: (row) => row.identity, alignRight: true },
    { title: 'STATE', value: (row) => row.state },
    { title: 'DEVICE', value: (row) => `weir${row.id} (${row.ifindex})`, wide: true },
    { title: 'MAC', value: (row) => row.mac, wide: true },
    { title: 'LABELS', value: (row) => labelsText(row.identityLabels), wide: true },
  ];
  const answers = await askNodes<EndpointView[]>(options, '/v1/endpoints');
  const rows = answers
    .flatMap((answer) => answer.value ?? [])
    .filter((row) => options.namespace === undefined || row.namespace === options.namespace)
    .sort((a, b) => a.node.localeCompare(b.node) || a.id - b.id);
  await printRows(columns, rows, options, 'No pods.');
}
