// `weir policy`: the policies that are enforced, whom they select, and those that cannot be understood.
import { type Command, Option } from 'commander';
import { type PolicyKind, policyName } from '../../core/rows.ts';
import { unenforcedText } from '../../secure/policy/policy-status.ts';
import type { PolicyView } from '../agent/policy-view.ts';
import { collect, wholeNumber } from './agent-command.ts';
import { addFormat, type Column, printRows } from './output.ts';
import type { ConvertFlags } from './policy/convert.ts';
import type { DiffFlags } from './policy/diff.ts';
import type { FmtFlags } from './policy/fmt.ts';
import type { ImpactFlags } from './policy/impact.ts';
import type { TestFlags } from './policy/test.ts';
import type { ValidateFlags } from './policy/validate.ts';
import { groupCommand, leafCommand, type QueryOptions, queryCommand } from './query-command.ts';

/** A policy as all nodes together see it. */
type ClusterPolicy = PolicyView & { readonly rowsByNode: Readonly<Record<string, number>> };

/** Between problems, which begin with their places; inside of one a semicolon is one. */
const problemBorder = /; (?=specs?[.[ ]|metadata\.|kind |apiVersion |and \d+ more$)/;

/** `policy list`. */
export function policyCommand(): Command {
  const list = queryCommand(
    'list',
    'List policies: pods selected, directions isolated, compiled rows, and what is wrong with one that cannot be understood.',
    [
      'weir policy list',
      'weir policy list -n storefront',
      'weir policy list --invalid                            # only those that cannot be understood',
      "weir policy list -o json | jq '.[] | select(.error)'",
    ],
  )
    .option('-n, --namespace <ns>', 'only policies of this namespace')
    .option('--invalid', 'only policies that cannot be understood')
    .action(listPolicies);
  const why = queryCommand(
    'why',
    'Say whether one end may talk with another, by which rule, which rules almost matched, and what would change it.',
    [
      'weir policy why shop/web shop/cart --port 8080           # pods, or workloads by name',
      'weir policy why app=web@shop svc shop/cart --port 8080   # labels that need not exist yet; a service',
      'weir policy why world 10.244.1.7 --port 443/tcp          # entities and addresses',
      'weir policy why shop/web kube-system/coredns --port 53/udp -o json',
      'weir policy why app=web@shop app=cart@shop -p 8080 --file policies/  # from files, without a cluster',
    ],
  )
    .argument(
      '<from>',
      'who connects: NAMESPACE/POD, LABEL=VALUE[,...][@NAMESPACE], an address, an entity, svc NAMESPACE/NAME',
    )
    .argument('<to>', 'whom to, in the same words')
    .option('-p, --port <port>', '443, 53/udp, sctp/3868, icmp, icmpv6/128', '80/tcp')
    .option('-f, --file <path>', 'policies from a file, a folder or - instead of a cluster (repeat)', collect)
    .option('--pods <path>', 'pods, workloads, namespaces, services and nodes from a file or folder (repeat)', collect)
    .action(
      async (from: string, to: string, options: QueryOptions & { port: string; file?: string[]; pods?: string[] }) => {
        const { explainPolicy } = await import('./policy-why.ts');
        await explainPolicy(from, to, options);
      },
    );
  return groupCommand(
    'policy',
    'Policies and what they do.',
    [
      list,
      why,
      validatePolicyCommand(),
      testPolicyCommand(),
      diffPolicyCommand(),
      impactPolicyCommand(),
      fmtPolicyCommand(),
      convertPolicyCommand(),
    ],
    [
      'weir policy list                                  # which pods each selects, and what is wrong with it',
      'weir policy list --invalid                        # only those that cannot be understood',
      'weir policy why shop/web shop/cart --port 8080    # may it, and by which rule',
    ],
  );
}

function validatePolicyCommand(): Command {
  return addFormat(
    leafCommand(
      'validate',
      'Say what is wrong or odd with the policies of files, with line and column. Asks no cluster.',
      [
        'weir policy validate policies/                        # a folder with everything below it',
        'weir policy validate policies/ --pods cluster.yaml    # also what needs pods: selectors that select nobody, ports, DNS',
        'weir policy validate policies/ --strict -o sarif      # warnings fail, too; for code hosts',
        'kustomize build . | weir policy validate -            # standard input',
      ],
    ),
    ['sarif'],
  )
    .argument('<file...>', 'files, folders, or - for standard input')
    .option('--pods <path>', 'pods, workloads, namespaces, services and nodes from a file or folder (repeat)', collect)
    .option('--strict', 'end with 1 for warnings, too')
    .action(async (files: string[], options: ValidateFlags) => {
      const { validateCommand } = await import('./policy/validate.ts');
      await validateCommand(files, options);
    });
}

function testPolicyCommand(): Command {
  return addFormat(
    leafCommand('test', 'Run suites of assertions about who may talk with whom. Asks no cluster.', [
      'weir policy test suite.yaml                        # 1 when an assertion fails, with why',
      'weir policy test suite.yaml -o tap                 # or junit, for CI systems',
      'weir policy test suite.yaml --file other-policies/ # with more policies than the suite names',
      'weir policy test examples/policy-ci/suite.yaml     # a suite to begin with',
    ]),
    ['tap', 'junit'],
  )
    .argument('<suite...>', 'files with policies, pods and tests such as "from shop/web to shop/db 5432/tcp: allowed"')
    .option('-f, --file <path>', 'more policies, from a file or folder (repeat)', collect)
    .option(
      '--pods <path>',
      'more pods, workloads, namespaces, services and nodes from a file or folder (repeat)',
      collect,
    )
    .option('--node <name>', 'see it as this node does (default: the first one)')
    .action(async (suites: string[], options: TestFlags) => {
      const { testCommand } = await import('./policy/test.ts');
      await testCommand(suites, options);
    });
}

function diffPolicyCommand(): Command {
  return addFormat(
    leafCommand('diff', 'Say which connections change between two sets of policies, and why. Asks no cluster.', [
      'weir policy diff old/ new/                                  # two folders of manifests',
      'weir policy diff main/policies policies --pods cluster.yaml # with the pods of a cluster: kubectl get pods,ns -A -o yaml',
      'weir policy diff old.yaml new.yaml --exit-code              # 1 when something changes',
      'weir policy diff old/ new/ --staged -o json                 # as if staged policies were enforced',
    ]),
  )
    .argument('<old>', 'a file or folder, or - for standard input')
    .argument('<new>', 'the same')
    .option('--pods <path>', 'pods, workloads, namespaces, services and nodes from a file or folder (repeat)', collect)
    .option('--node <name>', 'see it as this node does (default: the first one)')
    .option('--staged', 'as if staged policies were enforced')
    .option('--exit-code', 'end with 1 when a connection changes')
    .option('--limit <count>', 'lines that a table shows', wholeNumber(1, 1_000_000), 200)
    .action(async (old: string, now: string, options: DiffFlags) => {
      const { diffCommand } = await import('./policy/diff.ts');
      await diffCommand(old, now, options);
    });
}

function impactPolicyCommand(): Command {
  return queryCommand(
    'impact',
    'Say whom a policy would cut off or let in, judging by the connections that the nodes have seen.',
    [
      'weir policy impact shop/db                        # a policy of the cluster, such as a staged one',
      'weir policy impact new-policy.yaml --last 100000  # a file that is not applied yet',
      'weir policy impact new-policy.yaml --since 1h     # flows of the last hour',
      'weir policy impact shop/db -o json                # with why, with it and without it',
    ],
  )
    .argument('<policy>', 'namespace/name, kind/namespace/name, a file, or - for standard input')
    .option('--last <count>', 'look at so many flows of each node', wholeNumber(1, 100_000_000), 10_000)
    .option('--since <time>', 'flows from then on: 30s, 5m, 2h ago, or a time such as 2026-11-22T17:30:00Z')
    .option('--exit-code', 'end with 1 when a connection would be otherwise')
    .action(async (policy: string, options: ImpactFlags) => {
      const { impactCommand } = await import('./policy/impact.ts');
      await impactCommand(policy, options);
    });
}

function fmtPolicyCommand(): Command {
  return leafCommand('fmt', 'Write policies in one order of fields and lists. Keeps comments; asks no cluster.', [
    'weir policy fmt policies/ --write   # in place; names the files that changed',
    'weir policy fmt policies/ --check   # names the files that would change, and ends with 1',
    'weir policy fmt - < policy.yaml     # to standard output',
  ])
    .argument('<file...>', 'files, folders, or - for standard input')
    .addOption(new Option('--check', 'write nothing; end with 1 when a file is not formatted').conflicts('write'))
    .option('--write', 'write the files instead of standard output')
    .action(async (files: string[], options: FmtFlags) => {
      const { fmtCommand } = await import('./policy/fmt.ts');
      fmtCommand(files, options);
    });
}

function convertPolicyCommand(): Command {
  return leafCommand('convert', 'Write policies as another kind, where nothing is lost; else say what would be.', [
    'weir policy convert --to CiliumNetworkPolicy policies/ > cilium.yaml',
    'weir policy convert --to NetworkPolicy cilium.yaml                   # 1, and what would be lost, where it would',
    'weir policy convert --to NetworkPolicy cilium.yaml --force           # all the same',
  ])
    .argument('<file...>', 'files, folders, or - for standard input')
    .addOption(new Option('--to <kind>', 'the kind').choices(policyKinds).makeOptionMandatory())
    .option('--force', 'convert what loses something, too')
    .option('-n, --namespace <ns>', 'of policies that say none and need one', 'default')
    .action(async (files: string[], options: ConvertFlags) => {
      const { convertCommand } = await import('./policy/convert.ts');
      convertCommand(files, options);
    });
}

/** As in `PolicyKind`; their parsers need not be loaded to know them. */
const policyKinds: readonly PolicyKind[] = [
  'NetworkPolicy',
  'CiliumNetworkPolicy',
  'CiliumClusterwideNetworkPolicy',
  'ClusterNetworkPolicy',
];

async function listPolicies(options: QueryOptions & { namespace?: string; invalid?: boolean }): Promise<void> {
  const { askNodes } = await import('./ask-nodes.ts');
  const byKey = new Map<string, ClusterPolicy>();
  for (const { node, value } of await askNodes<PolicyView[]>(options, '/v1/policies')) {
    for (const row of value ?? []) {
      const before = byKey.get(row.key);
      byKey.set(row.key, {
        ...row,
        pods: [...new Set([...(before?.pods ?? []), ...row.pods])].sort(),
        rows: (before?.rows ?? 0) + row.rows,
        rowsByNode: { ...before?.rowsByNode, [node]: row.rows },
      });
    }
  }
  const rows = [...byKey.values()]
    .filter((row) => options.namespace === undefined || row.namespace === options.namespace)
    .filter((row) => !options.invalid || row.error !== undefined)
    .sort((a, b) => (a.key < b.key ? -1 : 1));
  const columns: Column<ClusterPolicy>[] = [
    { title: 'KIND', value: (row) => row.kind, shrinkTo: 8 },
    { title: 'NAMESPACE', value: (row) => row.namespace || '-', shrinkTo: 9 },
    { title: 'NAME', value: (row) => row.name, shrinkTo: 12 },
    { title: 'PODS', value: (row) => row.pods.length, alignRight: true },
    { title: 'ISOLATES', value: isolatesText },
    { title: 'ROWS', value: (row) => row.rows, alignRight: true },
    { title: 'STATE', value: stateText },
    { title: 'UID', value: (row) => row.uid, wide: true },
  ];
  await printRows(columns, rows, options, 'No policies: every pod may talk with everything.');
  if (options.output !== 'table') return;
  for (const row of rows) {
    if (row.error === undefined) continue;
    process.stdout.write(
      `\n${row.kind} ${policyName(row)} cannot be understood, so it isolates the pods it selects and allows nothing:\n`,
    );
    for (const problem of row.error.split(problemBorder)) process.stdout.write(`  ${problem}\n`);
  }
  for (const row of rows) {
    if (row.unenforced.length === 0) continue;
    process.stdout.write(`\n${row.kind} ${policyName(row)} is in part ${unenforcedText(row.kind)}:\n`);
    for (const place of row.unenforced) process.stdout.write(`  ${place}\n`);
  }
  for (const row of rows) {
    if (row.remarks.length === 0) continue;
    process.stdout.write(
      `\n${row.kind} ${policyName(row)} is understood, and may do something else than it seems to:\n`,
    );
    for (const remark of row.remarks) process.stdout.write(`  ${remark}\n`);
  }
}

function isolatesText(row: PolicyView): string {
  const directions = (['ingress', 'egress'] as const).filter((direction) => row.isolates[direction]);
  return directions.join(',') || '-';
}

function stateText(row: PolicyView): string {
  if (row.error !== undefined) return 'invalid: allows nothing';
  if (row.staged) return 'staged: only reported';
  return row.unenforced.length > 0 ? 'in part: see below' : 'enforced';
}
