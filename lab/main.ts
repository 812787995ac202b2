// `weir lab`: the command line of the lab. What it does is in the files beside it; here is only what a user types.
import { Command, Option } from 'commander';
import { errorText, WeirError } from '../src/core/errors.ts';
import { exitCodes } from '../src/core/exit-codes.ts';
import { exitWhenOutputCloses } from '../src/kernel/closed-pipe.ts';
import { runInteractive } from './command.ts';
import { downAllLabs, downLab } from './down.ts';
import { addImageCommands } from './image-commands.ts';
import { addNodeCommand, addOperatorCommand, addRelayCommand } from './node-commands.ts';
import { printAs, statusTable } from './output.ts';
import { programFile } from './programs.ts';
import { terminalProgress } from './progress.ts';
import { labNames, paths, readRecord, requireLab } from './state.ts';
import { labStatus } from './status.ts';
import { checkMachine, prepare, type UpOptions, upLab } from './up.ts';
import { worldCommand } from './world.ts';

const program = new Command('weir lab')
  .description('A real multi-node Kubernetes on this machine, with a Weir agent on every node.')
  .showHelpAfterError('(weir lab --help shows examples)')
  .exitOverride()
  .enablePositionalOptions()
  .addHelpText(
    'after',
    `
Examples:
  weir lab up                                  three nodes, dual stack; the first time it builds Kubernetes
  weir lab up --name six --ip-family v6 --nodes 2
  export KUBECONFIG=$(weir lab kubeconfig)     from here on it is a cluster for kubectl
  weir lab kubectl get pods -A                 kubectl as administrator, the lab's own
  weir lab node node1 exec -- ip address       a command inside a node
  weir lab node node2 kill-agent               the node's agent dies at once; start-agent starts it
  weir observe --server unix:/var/lib/weir-lab/lab/relay.sock   flows of all nodes, from the lab's relay
  weir lab world exec -- curl http://POD       a command outside the cluster, on the nodes' network
  weir lab down                                end it and leave nothing behind`,
  );

const nameOption = () => new Option('--name <name>', 'the lab').default('lab');
const wholeNumber = (text: string): number => {
  if (!/^\d+$/.test(text)) throw new WeirError('LAB_ARGUMENT_INVALID', `"${text}" is not a whole number`);
  return Number(text);
};

program
  .command('up')
  .description('start a lab; what is missing is built first, once')
  .addOption(nameOption())
  .option('--nodes <n>', 'nodes with kubelet and container runtime', wholeNumber, 3)
  .option('--kubeletless <n>', 'further nodes with an agent only, for pods without containers', wholeNumber, 0)
  .addOption(new Option('--ip-family <family>', 'address families').choices(['dual', 'v4', 'v6']).default('dual'))
  .option('--port <port>', 'port on 127.0.0.1 for the API server (default: a free one from 16443)', wholeNumber)
  .option(
    '--agent-option <option>',
    'what agents are started with beyond the lab’s own, such as --agent-option=--lb-mode=dsr (repeat)',
    (value: string, before: readonly string[] = []) => [...before, value],
  )
  .option('--no-agents', 'without Weir: nodes wait for another network')
  .action(async (options: UpOptions & { agentOption?: string[] }) => {
    const progress = terminalProgress();
    const record = await upLab({ ...options, agentOptions: options.agentOption, progress });
    const name = record.name === 'lab' ? '' : ` --name ${record.name}`;
    progress.note(`next: export KUBECONFIG=$(bin/weir lab kubeconfig${name})`);
  });

program
  .command('down')
  .description('end a lab and remove all of it')
  .addOption(nameOption())
  .option('--all', 'every lab on this machine')
  .action(async (options: { name: string; all?: boolean }) => {
    const progress = terminalProgress();
    if (options.all) {
      const ended = await downAllLabs();
      progress.note(ended.length === 0 ? 'no lab was up' : `ended: ${ended.join(', ')}`);
      return;
    }
    await progress.phase(`lab "${options.name}" is gone`, async () => {
      if (!(await downLab(options.name))) progress.note(`no lab "${options.name}" was up`);
    });
  });

program
  .command('status')
  .description('what a lab consists of: nodes, addresses, pids, sockets, logs')
  .addOption(nameOption())
  .addOption(new Option('-o, --output <format>').choices(['table', 'json', 'yaml']).default('table'))
  .action(async (options: { name: string; output: string }) => {
    const status = await labStatus(options.name);
    process.stdout.write(printAs(options.output, status, statusTable));
  });

program
  .command('list')
  .description('all labs on this machine')
  .addOption(new Option('-o, --output <format>').choices(['table', 'json', 'yaml']).default('table'))
  .action(async (options: { output: string }) => {
    const labs = labNames()
      .map(readRecord)
      .filter((record) => record !== undefined);
    const rows = await Promise.all(labs.map((record) => labStatus(record.name)));
    const shown = rows.map((row) => ({
      name: row.name,
      phase: row.phase,
      nodes: row.nodes.length,
      ipFamily: row.ipFamily,
      server: row.server,
    }));
    process.stdout.write(
      printAs(options.output, shown, (all) => [
        ['NAME', 'PHASE', 'NODES', 'FAMILY', 'SERVER'],
        ...all.map((row) => [row.name, row.phase, String(row.nodes), row.ipFamily, row.server]),
      ]),
    );
  });

program
  .command('kubeconfig')
  .description('print the path of the kubeconfig, for: export KUBECONFIG=$(weir lab kubeconfig)')
  .addOption(nameOption())
  .action((options: { name: string }) => {
    process.stdout.write(`${paths.kubeconfig(requireLab(options.name).name)}\n`);
  });

program
  .command('kubectl')
  .description('run kubectl as administrator of the lab')
  .addOption(nameOption())
  .argument('[args...]', 'what kubectl takes')
  .passThroughOptions()
  .allowUnknownOption()
  .helpOption(false)
  .action(async (args: string[], options: { name: string }) => {
    const { name } = requireLab(options.name);
    process.exitCode = await runInteractive([
      programFile('kubectl'),
      `--kubeconfig=${paths.kubeconfig(name)}`,
      ...args,
    ]);
  });

program
  .command('build')
  .description('build the programs and images of the lab into the cache, and start nothing')
  .action(async () => {
    const progress = terminalProgress();
    await progress.phase('everything is built', () => prepare(progress));
  });

addNodeCommand(program, nameOption);
addOperatorCommand(program, nameOption);
addRelayCommand(program, nameOption);
addImageCommands(program, nameOption);

const world = program
  .command('world')
  .description('the host outside the cluster, on the nodes’ network')
  .addOption(nameOption());
world
  .command('exec')
  .description('run a command in the network of the outside host: weir lab world exec -- ping 10.77.0.11')
  .addOption(new Option('--name <name>', 'the lab'))
  .argument('<command...>')
  .passThroughOptions()
  .action(async (command: string[], options: { name?: string }) => {
    const name = options.name ?? (world.opts().name as string);
    requireLab(name);
    const argv = command[0] === '--' ? command.slice(1) : command;
    process.exitCode = await runInteractive(await worldCommand(name, argv));
  });

/** The exit code that fits an error. */
function exitCodeOf(error: unknown): number {
  if (!(error instanceof WeirError)) return exitCodes.failed;
  switch (error.code) {
    case 'LAB_ARGUMENT_INVALID':
      return exitCodes.usage;
    case 'LAB_NOT_FOUND':
      return exitCodes.notFound;
    case 'NOT_ROOT':
    case 'LAB_MACHINE_UNSUPPORTED':
      return exitCodes.notPermitted;
    default:
      return exitCodes.failed;
  }
}

// What enters namespaces or changes them says so before it tries.
const needRoot = new Set(['build', 'down', 'exec', 'import', 'node', 'operator', 'up']);
program.hook('preAction', (_program, action) => {
  if (needRoot.has(action.name())) checkMachine();
});

/** What went wrong, in the words that a user gets. */
function explained(error: unknown): unknown {
  const { code } = error as { code?: string };
  if (code === 'EACCES' || code === 'EPERM')
    return new WeirError('NOT_ROOT', errorText(error), undefined, { cause: error });
  return error;
}

exitWhenOutputCloses();
try {
  await program.parseAsync();
} catch (thrown) {
  const { code, exitCode } = thrown as { code?: string; exitCode?: number };
  if (typeof code === 'string' && code.startsWith('commander.')) {
    process.exitCode = exitCode === 0 ? exitCodes.ok : exitCodes.usage; // its message is printed already
  } else {
    const error = explained(thrown);
    const prefix = error instanceof WeirError ? `${error.code}: ` : '';
    process.stderr.write(`weir lab: ${prefix}${errorText(error)}\n`);
    if (error instanceof WeirError) process.stderr.write(`  ${error.hint}\n`);
    if (process.env.WEIR_DEBUG && thrown instanceof Error) process.stderr.write(`${thrown.stack}\n`);
    process.exitCode = exitCodeOf(error);
  }
}
