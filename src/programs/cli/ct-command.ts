// `weir ct`: the connections that nodes track.
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { ConnectionView } from '../agent/conntrack-entries.ts';
import { wholeNumber } from './agent-command.ts';
import { protocolNumber } from './display-units.ts';
import { type Column, printRows } from './output.ts';
import { groupCommand, type QueryOptions, queryCommand } from './query-command.ts';

/** The states of bpf/lib/datapath_structs.h without their prefix. */
const connectionStates = ['opening', 'open', 'closing', 'closed'] as const;

type ConnectionOptions = QueryOptions & {
  ip?: string;
  port?: number;
  protocol?: number;
  state?: string;
  verdict?: string;
  limit: number;
};

/** `ct list`. */
export function ctCommand(): Command {
  const list = queryCommand('list', 'List tracked connections, the most recently used first.', [
    'weir ct list',
    'weir ct list --ip 10.244.0.4 --port 8080   # either end',
    'weir ct list --verdict dropped             # what policy keeps out',
    'weir ct list --protocol udp --limit 20',
  ])
    .option('--ip <address>', 'either end has this address')
    .option('--port <port>', 'either end has this port', wholeNumber(0, 65_535))
    .option('--protocol <name>', 'tcp, udp, sctp, icmp, icmpv6 or a number', protocol)
    .addOption(new Option('--state <state>', 'how far the connection is').choices(connectionStates))
    .option('--verdict <verdict>', 'forwarded, dropped, or a drop reason such as POLICY_DENIED')
    .option('--limit <count>', 'at most so many of each node', wholeNumber(1, 10_000_000), 1000)
    .action(listConnections);
  return groupCommand(
    'ct',
    'Tracked connections.',
    [list],
    [
      'weir ct list                     # the most recently used ones',
      'weir ct list --verdict dropped   # what policy keeps out',
    ],
  );
}

function protocol(text: string): number {
  const number = protocolNumber(text);
  if (number === undefined) throw new InvalidArgumentError('give tcp, udp, sctp, icmp, icmpv6 or a number to 255');
  return number;
}

async function listConnections(options: ConnectionOptions): Promise<void> {
  const { canonicalIp } = await import('../../core/ip.ts');
  const { notAnAddress } = await import('./ip-command.ts');
  const { askNodes } = await import('./ask-nodes.ts');
  const { bytesText, durationText, endText, protocolText } = await import('./display-units.ts');
  const { ip } = options;
  if (ip !== undefined && (ip.includes('/') || canonicalIp(ip) === undefined)) throw notAnAddress(ip);
  const query = new URLSearchParams();
  for (const name of ['ip', 'port', 'protocol', 'state', 'verdict'] as const)
    if (options[name] !== undefined) query.set(name, String(options[name]));
  query.set('limit', String(options.limit + 1));
  const answers = await askNodes<ConnectionView[]>(options, `/v1/conntrack?${query}`);
  const rows = answers.flatMap(({ node, value }) =>
    (value ?? []).slice(0, options.limit).map((row) => ({ node, ...row })),
  );
  const columns: Column<ConnectionView & { node: string }>[] = [
    { title: 'NODE', value: (row) => row.node, shrinkTo: 6 },
    { title: 'PROTO', value: (row) => protocolText(row.protocol) },
    { title: 'SOURCE', value: (row) => endText(row.source, row.sourcePort, row.protocol), shrinkTo: 15 },
    { title: 'DESTINATION', value: (row) => endText(row.destination, row.destinationPort, row.protocol), shrinkTo: 15 },
    { title: 'STATE', value: (row) => row.state },
    { title: 'VERDICT', value: (row) => row.verdict },
    { title: 'PACKETS', value: (row) => row.packets.join('/'), alignRight: true },
    { title: 'BYTES', value: (row) => row.bytes.map(bytesText).join(' / '), alignRight: true, wide: true },
    { title: 'IDLE', value: (row) => durationText(row.idleSeconds), alignRight: true },
    { title: 'ENDS IN', value: (row) => durationText(Math.max(0, row.lifetimeSeconds - row.idleSeconds)), wide: true },
    { title: 'IDENTITIES', value: (row) => `${row.sourceIdentity} → ${row.destinationIdentity}`, wide: true },
  ];
  await printRows(columns, rows, options, 'No connections.');
  for (const { node, value } of answers)
    if ((value ?? []).length > options.limit)
      process.stderr.write(
        `weir: ${node} has more than ${options.limit}: raise --limit, or narrow with --ip and --port\n`,
      );
}
