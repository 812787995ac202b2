// `weir certs`: certificates for who serves and reads flows over the network.
import { type Command, InvalidArgumentError } from 'commander';
import { collect, wholeNumber } from './agent-command.ts';
import { addOutputOptions, type Column, type OutputOptions, printRows } from './output.ts';
import { groupCommand, leafCommand } from './query-command.ts';

interface NodeArgument {
  readonly name: string;
  readonly addresses: readonly string[];
}

function nodeArgument(text: string, before: readonly NodeArgument[] = []): NodeArgument[] {
  const [name = '', addresses] = text.split('=');
  if (!/^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/.test(name))
    throw new InvalidArgumentError('give NAME, or NAME=ADDRESS,ADDRESS');
  return [...before, { name, addresses: addresses?.split(',').filter(Boolean) ?? [] }];
}

interface ClientArgument {
  readonly name: string;
  readonly groups: readonly string[];
}

function clientArgument(text: string, before: readonly ClientArgument[] = []): ClientArgument[] {
  const [name = '', groups] = text.split('=');
  const each = groups?.split(',').filter(Boolean) ?? [];
  if (
    !/^[A-Za-z0-9][-A-Za-z0-9_.@]{0,62}$/.test(name) ||
    !each.every((group) => /^[A-Za-z0-9][-A-Za-z0-9_.@:]{0,62}$/.test(group))
  )
    throw new InvalidArgumentError('give NAME, or NAME=GROUP,GROUP, of letters, digits, -_.@ (groups also :)');
  return [...before, { name, groups: each }];
}

type IssueFlags = OutputOptions & {
  readonly dir?: string;
  readonly secrets?: string;
  readonly kubeconfig?: string;
  readonly node?: NodeArgument[];
  readonly client?: ClientArgument[];
  readonly relayName?: string[];
  readonly cluster: string;
  readonly days: number;
  readonly renewDays?: number;
};

/** The command and what is below it. */
export function certsCommand(): Command {
  const issue = addOutputOptions(
    leafCommand(
      'issue',
      'Make certificates for agents, relay and clients of flows, and those anew that end soon; what is good stays.',
      [
        'weir certs issue --dir /etc/weir/flows                        # one certificate for all agents',
        'weir certs issue --dir pki --node node1=10.9.0.1 --node node2 --client alice',
        'weir certs issue --secrets kube-system                        # Secrets weir-flow-NAME; run it every week',
      ],
    ),
  )
    .option('--dir <folder>', 'write files NAME.crt and NAME.key there')
    .option('--secrets <namespace>', 'write Secrets weir-flow-NAME to this namespace of the cluster')
    .option(
      '--kubeconfig <file>',
      'how to reach the API server (default: the pod’s service account, $KUBECONFIG or ~/.kube/config)',
    )
    .option(
      '--node <name=addresses>',
      'a certificate of its own for a node (repeat; default: one for all agents)',
      nodeArgument,
    )
    .option(
      '--client <name>',
      'a certificate for somebody who reads flows from the relay: NAME, or NAME=GROUP,GROUP (repeat)',
      clientArgument,
    )
    .option('--relay-name <name>', 'a further name or address by which clients reach the relay (repeat)', collect)
    .option('--cluster <name>', 'the cluster, in the names of its nodes', 'default')
    .option('--days <days>', 'how long certificates are good', wholeNumber(1, 3650), 90)
    .option(
      '--renew-days <days>',
      'one that ends within so many days is made anew (default: a third of --days)',
      wholeNumber(0, 3650),
    )
    .action(async (options: IssueFlags) => {
      const { WeirError } = await import('../../core/errors.ts');
      const { folderStore, secretStore } = await import('../certs/certificate-stores.ts');
      const { issueCertificates } = await import('../certs/issue-certificates.ts');
      if ((options.dir === undefined) === (options.secrets === undefined))
        throw new WeirError('CONFIG_INVALID', 'certificates go to files or to Secrets', 'Give --dir or --secrets.');
      let close = () => {};
      let store = folderStore(options.dir ?? '');
      if (options.secrets !== undefined) {
        const { createKubeClient } = await import('../../kube/client.ts');
        const { findAccess } = await import('../../kube/kubeconfig.ts');
        const client = createKubeClient(findAccess(options.kubeconfig));
        close = () => client.close();
        store = secretStore(client, options.secrets);
      }
      try {
        const issued = await issueCertificates(store, {
          nodes: options.node ?? [],
          clients: options.client ?? [],
          relayNames: options.relayName ?? [],
          cluster: options.cluster,
          days: options.days,
          renewDays: options.renewDays ?? Math.floor(options.days / 3),
        });
        await printRows(columns, issued, options, 'no certificates');
      } finally {
        close();
      }
    });
  return groupCommand(
    'certs',
    'Certificates for flows over the network: who is an agent, the relay, or a client.',
    [issue],
    [
      'weir certs issue --dir /etc/weir/flows --client alice',
      'weir certs issue --secrets kube-system                  # as Secrets of the cluster',
    ],
  );
}

const columns: Column<{ name: string; done: string; why: string }>[] = [
  { title: 'NAME', value: (row) => row.name },
  { title: 'DONE', value: (row) => row.done },
  { title: 'WHY', value: (row) => row.why },
];
