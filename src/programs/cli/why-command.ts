// `weir why`: which layer broke, in one answer.
import { type Command, Option } from 'commander';
import { wholeNumber } from './agent-command.ts';
import { printable } from './printable.ts';
import { type QueryOptions, queryCommand } from './query-command.ts';

type WhyOptions = QueryOptions & { port?: number; protocol?: string; since: string };

/** The command. */
export function whyCommand(): Command {
  return queryCommand(
    'why',
    'Say why a connection does not work: name, policy, route, service, answer or application.',
    [
      'weir why shop/cart shop/db:5432          # a pod, and a pod, service, address or name',
      'weir why shop/cart www.example.com       # did the name resolve?',
      'weir why shop/cart                       # whatever the pod tried lately',
      'weir why                                 # asks for both',
      'weir why shop/cart shop/db -o json | jq -r .[0].cause',
    ],
  )
    .argument('[from]', 'NAMESPACE/POD (a beginning will do), or an address')
    .argument('[to]', 'NAMESPACE/POD, NAMESPACE/SERVICE, an address or a name; with :PORT')
    .option('--port <port>', 'the port, when TO has none', wholeNumber(1, 65_535))
    .addOption(new Option('--protocol <name>', 'only connections of this protocol').choices(['tcp', 'udp', 'sctp']))
    .option('--since <time>', 'how far back to look, such as 5m', '5m')
    .action(explain);
}

async function explain(from: string | undefined, to: string | undefined, options: WhyOptions): Promise<void> {
  const [{ gatherEvidence, splitPort }, { diagnose }, { parseTime }] = await Promise.all([
    import('./why/gather.ts'),
    import('../../observe/why/diagnose.ts'),
    import('./observe/flow-flags.ts'),
  ]);
  const asked = from === undefined ? await ask() : { from, to };
  const end = asked.to === undefined || asked.to === '' ? undefined : splitPort(asked.to);
  const port = end?.port ?? options.port;
  const evidence = await gatherEvidence(
    {
      from: asked.from,
      ...(end && { to: end.name }),
      ...(port !== undefined && { port }),
      ...(options.protocol !== undefined && { protocol: options.protocol }),
      sinceMs: parseTime('since', options.since, Date.now()),
    },
    options,
  );
  const answers = diagnose(evidence);
  if (options.output !== 'table') {
    const { printValue } = await import('./output.ts');
    return printValue(answers, options);
  }
  const [first, ...others] = answers;
  const lines = [`${first!.layer}: ${first!.says}`, `  ${first!.do}`];
  if (first!.evidence.length > 0) lines.push('', ...first!.evidence.map((each) => `  ${each}`));
  if (others.length > 0) lines.push('', 'also:', ...others.map((each) => `  ${each.layer}: ${each.says}`));
  process.stdout.write(`${lines.map(printable).join('\n')}\n`);
}

/** Asks on the terminal, and explains what can be answered. */
async function ask(): Promise<{ from: string; to: string }> {
  const { createInterface } = await import('node:readline/promises');
  const { WeirError } = await import('../../core/errors.ts');
  if (!process.stdin.isTTY)
    throw new WeirError(
      'CONFIG_INVALID',
      'there is nobody to ask',
      'Give FROM and TO: weir why shop/cart shop/db:5432',
    );
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    const from = (await terminal.question('Who connects? (NAMESPACE/POD, or an address) ')).trim();
    const to = (
      await terminal.question('To whom? (pod, service, address or name, with :PORT; empty: to anybody) ')
    ).trim();
    if (from === '') throw new WeirError('CONFIG_INVALID', 'nobody was named');
    return { from, to };
  } finally {
    terminal.close();
  }
}
