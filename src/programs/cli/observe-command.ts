// `weir observe`: flows of one node or all. The flags are here; what they ask for is in observe/.
import { Command, Option } from 'commander';
import { collect, wholeNumber } from './agent-command.ts';
import { addServerOptions } from './server-options.ts';
import { addTargetOptions } from './targets.ts';

/** Collects a filter and where it stood, so that --not binds to the filter after it. */
export interface FilterFlag {
  readonly flag: string;
  readonly value: string;
  readonly not: boolean;
}

const filterFlags: readonly [flags: string, description: string][] = [
  ['-n, --namespace <NS>', 'either end is in the namespace'],
  ['--from-namespace <NS>', 'the source is in the namespace'],
  ['--to-namespace <NS>', 'the destination is in the namespace'],
  ['--pod <NS/NAME>', 'either end is the pod; a prefix of the name is enough'],
  ['--from-pod <NS/NAME>', 'the source is the pod'],
  ['--to-pod <NS/NAME>', 'the destination is the pod'],
  ['-l, --label <SELECTOR>', 'either end has these labels'],
  ['--from-label <SELECTOR>', 'the source has these labels'],
  ['--to-label <SELECTOR>', 'the destination has these labels'],
  ['--workload <NAME>', 'either end belongs to the workload; kind/name is narrower'],
  ['--service <NS/NAME>', 'either end was reached through the Service; a prefix of the name is enough'],
  ['--to-service <NS/NAME>', 'the destination was reached through the Service'],
  ['--ip <ADDRESS>', 'either end has an address of these'],
  ['--from-ip <ADDRESS>', 'the source has an address of these'],
  ['--to-ip <ADDRESS>', 'the destination has an address of these'],
  ['--identity <ID>', 'either end has the identity: a number, or a reserved name such as world'],
  ['--from-identity <ID>', 'the source has the identity'],
  ['--to-identity <ID>', 'the destination has the identity'],
  ['--port <PORT>', 'either port is this one, or in a range such as 8000-8999'],
  ['--from-port <PORT>', 'the source port'],
  ['--to-port <PORT>', 'the destination port'],
  ['--protocol <NAME>', 'tcp, udp, sctp, icmp, icmpv4, icmpv6, or dns'],
  ['--verdict <VERDICT>', 'forwarded, dropped or audit'],
  ['--drop-reason <NAME>', 'such as POLICY_DENIED; all are in docs/drop-reasons.md'],
  ['--direction <DIRECTION>', 'ingress or egress: seen from the pod at which the flow was observed'],
  ['--traffic-direction <DIRECTION>', 'the same'],
  ['--tcp-flags <FLAGS>', 'TCP with all of these flags, such as SYN,ACK'],
  ['--ip-version <VERSION>', '4 or 6'],
  ['--reply', 'only packets that answer'],
  ['--fqdn <NAME>', 'either end is known by the name to the other; * stands for any characters'],
  ['--from-fqdn <NAME>', 'the source is known by the name'],
  ['--to-fqdn <NAME>', 'the destination is known by the name'],
  ['--dns-query <PATTERN>', 'messages of DNS that ask for a name with a part that matches (RE2)'],
  ['--from-service <NS/NAME>', 'the source was reached through the Service'],
  ['--from-workload <NAME>', 'the source belongs to the workload'],
  ['--to-workload <NAME>', 'the destination belongs to the workload'],
  ['--cluster <NAME>', 'either end is in the cluster'],
  ['--node-name <NAME>', 'of nodes with such a name, * for any characters; cluster/name is narrower'],
  ['--node-label <SELECTOR>', 'of nodes with these labels'],
  ['--type <TYPE>', 'drop, trace or l7; a sub type after a colon, such as trace:to-endpoint'],
  ['--interface <NAME>', 'seen on the interface'],
  ['--snat-ip <ADDRESS>', 'the source was translated to an address of these'],
  ['--encrypted', 'over an encrypted link between nodes'],
  ['--trace-id <ID>', 'of the trace of a request'],
  ['--ip-trace-id <ID>', 'with the trace id in an option of the IP header'],
  ['--http-status <CODE>', 'answers of HTTP: 404, 40+ or 5+'],
  ['--http-method <METHOD>', 'requests of HTTP with the method'],
  ['--http-path <PATTERN>', 'requests of HTTP whose path matches (RE2)'],
  ['--http-url <PATTERN>', 'requests of HTTP whose URL matches (RE2)'],
  ['--http-header <KEY:VALUE>', 'requests of HTTP with the header'],
  ['--cel-expression <EXPRESSION>', "an expression of CEL over _flow, such as '_flow.verdict == Verdict.DROPPED'"],
  ['--uuid <UUID>', 'the flow with this uuid'],
  [
    '--process <PATTERN>',
    'either end’s process: a base name such as curl, a path, or an exec id; * for any characters',
  ],
  ['--policy <NS/NAME>', 'a policy that allowed or denied'],
];

/** The filters that were given, in their order. */
export interface ChosenFilters {
  readonly filters: readonly FilterFlag[];
  /** A --not that nothing came after. */
  readonly trailingNot: boolean;
}

/** Adds all filters and --not; what is given of them is in the answer when the command runs. */
export function addFilterFlags(command: Command): ChosenFilters {
  const filters: FilterFlag[] = [];
  let not = false;
  // Two-dash options that commander keeps in order by collecting them all into one list.
  command.option('--not', 'turns round the filter after it: leave out what it matches');
  command.on('option:not', () => {
    not = true;
  });
  for (const [flags, description] of filterFlags) {
    command.option(flags, description);
    const option = command.options.at(-1)!;
    command.on(`option:${option.name()}`, (value: string | null) => {
      filters.push({ flag: option.name(), value: value ?? '', not });
      not = false;
    });
  }
  return {
    filters,
    get trailingNot() {
      return not;
    },
  };
}

/** The command and its options. */
export function observeCommand(): Command {
  const command = addServerOptions(
    addTargetOptions(
      new Command('observe').description(
        'Show flows: who talked to whom, what became of it, and which policy and rule said so.',
      ),
    ),
  )
    .option(
      '--last <COUNT>',
      'the last flows that match, of all nodes together (default: 20; none with --follow)',
      wholeNumber(1, 100_000_000),
    )
    .option('--first <COUNT>', 'the oldest flows of each node that match', wholeNumber(1, 100_000_000))
    .option('--all', 'all flows in memory')
    .option('-f, --follow', 'go on with new flows')
    .option('--since <TIME>', 'flows from then on: 30s, 5m, 2h ago, or a time such as 2026-11-22T17:30:00Z')
    .option('--until <TIME>', 'flows up to then')
    .addOption(
      new Option('-o, --output <FORMAT>', 'how flows are printed')
        .choices(['compact', 'table', 'json', 'jsonpb', 'dict'])
        .default('compact'),
    )
    .addOption(new Option('--color <WHEN>', 'colours').choices(['auto', 'always', 'never']).default('auto'))
    .option(
      '--input-file <FILE>',
      'flows from a file, as -o json or jsonpb wrote them, instead of nodes; - for standard input',
    )
    .option('--stats', 'count flows by verdict, drop reason, pod and port, instead of printing them')
    .option('--print-process', 'compact and table name processes, too (default: on wide terminals)')
    .option('--field-mask <PATHS>', 'only these fields, such as time,source.pod_name (repeat; json only)', collect);
  const chosen = addFilterFlags(command);
  return command
    .addHelpText(
      'after',
      `
Filters of one kind widen (--verdict dropped --verdict forwarded), filters of different kinds narrow.

Examples:
  weir observe                                           # the last 20 flows of every node
  weir observe -f --verdict dropped                      # denials, as they happen
  weir observe --since 5m --pod shop/cart                # either end is a pod of shop whose name begins with cart
  weir observe --from-namespace shop --to-identity world # who leaves the cluster
  weir observe --policy shop/default-deny                # what a policy did
  weir observe -f --process curl                         # what curl talks to, or is asked by
  weir observe -f --not --namespace kube-system          # all but a namespace
  weir observe --server relay:4245 --tls-ca-cert-files ca.crt -f   # of a relay
  weir observe --input-file flows.json --verdict dropped # what was written before
  weir observe --since 10m --stats                       # what there was, in numbers
  weir observe --last 100 -o json | jq .flow.verdict
`,
    )
    .action(async (options) => {
      const { observe } = await import('./observe/observe.ts');
      process.exitCode = await observe({
        ...options,
        filters: chosen.filters,
        trailingNot: chosen.trailingNot,
      });
      if (options.stats) process.stdout.write('', () => process.exit());
    });
}
