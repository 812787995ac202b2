// `weir status --server`: how a relay, or one agent's server of flows, is, and the nodes it reads.
import { toJson } from '@bufbuild/protobuf';
import {
  type GetNodesResponse,
  GetNodesResponseSchema,
  Observer,
  type ServerStatusResponse,
  ServerStatusResponseSchema,
} from '../../../proto/gen/observer/observer_pb.js';
import { NodeState } from '../../../proto/gen/relay/relay_pb.js';
import { errorText, WeirError } from '../../core/errors.ts';
import { exitCodes } from '../../core/exit-codes.ts';
import { askFor, connectRpc } from '../../observe/rpc/rpc-connection.ts';
import { durationText } from './display-units.ts';
import { flowServerTarget } from './flow-server.ts';
import { type Column, type OutputOptions, printValue, tableText, terminalColumns } from './output.ts';
import type { ServerOptions } from './server-options.ts';

type Node = GetNodesResponse['nodes'][number];

const answerMs = 10_000;

/** Asks and prints. Exit code 1 when a node is not reached. */
export async function showServerStatus(
  options: OutputOptions & ServerOptions & { readonly server: string; readonly brief?: boolean },
): Promise<void> {
  const { rpc } = flowServerTarget(options);
  try {
    const connection = await connectRpc(rpc);
    const [status, nodes] = await Promise.all([
      askFor(connection, Observer.method.serverStatus, answerMs),
      askFor(connection, Observer.method.getNodes, answerMs),
    ]).finally(connection.close);
    const missing = Number(status.numUnavailableNodes ?? 0);
    if (missing > 0) process.exitCode ??= exitCodes.failed;
    if (options.output !== 'table')
      return await printValue(
        {
          status: toJson(ServerStatusResponseSchema, status),
          ...(toJson(GetNodesResponseSchema, nodes) as object),
        },
        options,
      );
    process.stdout.write(summary(options.server, status));
    if (!options.brief)
      process.stdout.write(
        `\n${tableText(columns, nodes.nodes, { wide: options.wide, terminalColumns: terminalColumns() })}`,
      );
    return undefined;
  } catch (error) {
    if (error instanceof WeirError) throw error;
    throw new WeirError(
      'AGENT_UNREACHABLE',
      `no answer from ${options.server}: ${errorText(error)}`,
      'Is its address right, and are its certificates? See `weir status --help`.',
    );
  }
}

function summary(server: string, status: ServerStatusResponse): string {
  const { numConnectedNodes = 0, numUnavailableNodes = 0, unavailableNodes } = status;
  const all = numConnectedNodes + numUnavailableNodes;
  const facts = [
    `${numConnectedNodes} of ${all} nodes`,
    `${status.numFlows} of ${status.maxFlows} flows kept`,
    `${status.flowsRate.toFixed(1)}/s`,
    `up ${durationText(Number(status.uptimeNs / 1_000_000_000n))}`,
    status.version,
  ];
  const more = numUnavailableNodes - unavailableNodes.length;
  const missing =
    numUnavailableNodes === 0
      ? ''
      : `  ! not reached: ${unavailableNodes.join(', ')}${more > 0 ? ` and ${more} more` : ''}\n`;
  return `${server}: ${numUnavailableNodes === 0 ? 'healthy' : 'UNHEALTHY'} (${facts.join(', ')})\n${missing}`;
}

const columns: Column<Node>[] = [
  { title: 'NODE', value: (row) => row.name },
  { title: 'STATE', value: (row) => (NodeState[row.state] ?? '').replace('NODE_', '').toLowerCase() },
  { title: 'ADDRESS', value: (row) => row.address },
  { title: 'TLS', value: (row) => (row.tls?.enabled ? row.tls.serverName : 'no') },
  { title: 'KEPT', value: (row) => Number(row.numFlows), alignRight: true },
  { title: 'SEEN', value: (row) => Number(row.seenFlows), alignRight: true },
  { title: 'UP', value: (row) => durationText(Number(row.uptimeNs / 1_000_000_000n)), wide: true },
  { title: 'VERSION', value: (row) => row.version, wide: true },
];
