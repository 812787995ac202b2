// The demonstration: a lab, the example shop, its policies, and what came of every connection. `make demo` runs it.
import { join } from 'node:path';
import { errorText, WeirError } from '../src/core/errors.ts';
import { exitCodes } from '../src/core/exit-codes.ts';
import { type Connection, describe, type FlowLine, parseFlowLines, summarize } from './demo-summary.ts';
import {
  attempt,
  kubectl,
  type LabRecord,
  type Progress,
  readRecord,
  terminalProgress,
  upLab,
  waitFor,
} from './lab.ts';
import { repository } from './state.ts';

const lab = 'lab';
const shop = join(repository, 'examples/shop');
const namespaces = ['storefront', 'backend', 'data'];

/** What must have been seen before it is worth printing: an order through all of the shop, and the three pranks. */
function isEnough(connections: readonly Connection[]): boolean {
  const ordered = connections.some((each) => !each.denied && each.to.startsWith('data/ledger'));
  return ordered && connections.filter((each) => each.denied).length >= 3;
}

async function main(progress: Progress): Promise<void> {
  await bringUp(progress);
  await progress.phase('the shop is deployed', async () => {
    await apply(['apply', '-k', shop]);
    await Promise.all(
      namespaces.map((each) =>
        apply(['wait', '--namespace', each, '--for=condition=Available', 'deployment', '--all', '--timeout=120s']),
      ),
    );
  });
  const closedAt = Date.now();
  await progress.phase('its policies are applied', () => apply(['apply', '-f', join(shop, 'policies.yaml')]));
  const lines = await progress.phase('the shop went on under its policies', () => observe(closedAt + 1_000));
  print(lines);
}

async function bringUp(progress: Progress): Promise<void> {
  const record: LabRecord | undefined = readRecord(lab);
  if (record?.phase === 'up' && record.agents) {
    const ready = await kubectl(lab, ['get', '--raw', '/readyz']);
    if (ready.status === 0) {
      progress.note(`lab "${lab}" is up already and is used`);
      return;
    }
  }
  await upLab({ name: lab, progress });
}

async function apply(args: readonly string[]): Promise<void> {
  const done = await kubectl(lab, args);
  if (done.status !== 0) throw new WeirError('LAB_COMMAND_FAILED', `kubectl ${args[0]}: ${done.stderr.trim()}`);
}

/** Reads the flows since a time until there is enough to show; what there is after half a minute is shown anyway. */
async function observe(sinceMs: number): Promise<FlowLine[]> {
  let lines: FlowLine[] = [];
  const read = async () => {
    const argv = [join(repository, 'bin/weir'), 'observe', '--context', lab, '-o', 'json', '--last', '1000'];
    const done = await attempt(argv);
    // An agent may just be busy; a command line that is refused stays refused.
    if (done.status === exitCodes.usage) throw new WeirError('LAB_COMMAND_FAILED', done.stderr.trim());
    if (done.status !== 0) throw new Error(done.stderr.trim());
    lines = parseFlowLines(done.stdout).filter((line) => Date.parse(line.time ?? line.flow?.time ?? '') >= sinceMs);
    return isEnough(summarize(lines));
  };
  await waitFor('flows of the shop', read, 30_000, 1_000).catch((error) => {
    if (lines.length === 0) throw error;
  });
  return lines;
}

function print(lines: readonly FlowLine[]): void {
  const found = summarize(lines);
  const [allowed, denied] = [found.filter((each) => !each.denied), found.filter((each) => each.denied)];
  const section = (title: string, connections: typeof found) =>
    `\n${title}\n\n${connections.map(describe).join('') || '  none was seen\n'}`;
  process.stdout.write(section(`ALLOWED: ${allowed.length} connections`, allowed));
  process.stdout.write(section(`DENIED: ${denied.length} connections`, denied));
  process.stdout.write(`
The lab stays up until: bin/weir lab down

Six things to try next:
  bin/weir observe -f --verdict DROPPED
      watch the recommender being refused, with the policies that refuse it
  bin/weir ps storefront && bin/weir why storefront/recommender backend/payment
      what runs in these pods and whom it talks to, and why one of them gets no answer
  export KUBECONFIG=$(bin/weir lab kubeconfig) && kubectl get pods -A -o wide
      from here on it is an ordinary cluster
  bin/weir lab kubectl delete networkpolicy -n storefront web-to-services
      the page breaks at once, live connections included; apply examples/shop/policies.yaml to mend it
  bin/weir lab node node2 kill-agent && bin/weir lab kubectl logs -n storefront deploy/shopper --tail=5 -f
      an agent dies and the shop does not notice; start-agent brings it back
  bin/weir status && bin/weir drops
      what Weir has in its tables, and what it has dropped and why
`);
}

const progress = terminalProgress();
try {
  await main(progress);
} catch (error) {
  process.stderr.write(`demo: ${errorText(error)}\n`);
  if (error instanceof WeirError) process.stderr.write(`  ${error.hint}\n`);
  process.exitCode = 1;
}
