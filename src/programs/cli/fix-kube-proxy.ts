// `weir doctor --fix kube-proxy`: removes from this node what kube-proxy has left, when told to.
import { createInterface } from 'node:readline/promises';
import { findProxyTraces, type ProxyTraces } from '../../connect/kube-proxy/leftovers.ts';
import { errorText, WeirError } from '../../core/errors.ts';

/** How far to go. */
export interface FixOptions {
  readonly yes?: boolean;
  readonly dryRun?: boolean;
}

/** Lists what is there, asks, and removes it. */
export async function fixKubeProxy(options: FixOptions): Promise<void> {
  if (process.getuid?.() !== 0) throw new WeirError('NOT_ROOT', 'only root sees and changes the rules of this node');
  const traces = findProxyTraces();
  for (const line of traces.unknown) process.stdout.write(`not known: ${line}\n`);
  if (traces.leftovers.length === 0) {
    process.stdout.write('Nothing of kube-proxy was found on this node.\n');
    return;
  }
  for (const { what, stays } of traces.leftovers)
    process.stdout.write(`found: ${what}\n${stays === undefined ? '' : `  ${stays}\n`}`);
  if (options.dryRun) return;
  refuseWhileRunning(traces);
  if (!options.yes && !(await agreed())) {
    process.stdout.write('Nothing was changed.\n');
    return;
  }
  const failed: string[] = [];
  for (const { what, remove } of traces.leftovers) {
    try {
      remove();
      process.stdout.write(`removed: ${what}\n`);
    } catch (error) {
      failed.push(`${what}: ${errorText(error)}`);
    }
  }
  if (failed.length > 0) throw new WeirError('KUBE_PROXY_REMAINS', failed.join('; '));
}

function refuseWhileRunning({ running }: ProxyTraces): void {
  if (running.length === 0) return;
  throw new WeirError(
    'KUBE_PROXY_RUNNING',
    `it runs on this node as process ${running.map((each) => each.pid).join(', ')}`,
  );
}

async function agreed(): Promise<boolean> {
  if (!process.stdin.isTTY)
    throw new WeirError(
      'CONFIG_INVALID',
      'nobody can be asked here',
      'Give --yes to remove it, --dry-run to only list it.',
    );
  const terminal = createInterface({ input: process.stdin, output: process.stdout });
  const answer = await terminal.question('Remove all of this? [y/N] ');
  terminal.close();
  return /^y(es)?$/i.test(answer.trim());
}
