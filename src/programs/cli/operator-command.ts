// `weir operator`: one per cluster.
import { Command, InvalidArgumentError, Option } from 'commander';
import { collect, wholeNumber } from './agent-command.ts';

function minutes(text: string): number {
  const value = Number(text);
  if (!(value >= 0.01 && value <= 100_000)) throw new InvalidArgumentError('give minutes from 0.01 to 100000');
  return value;
}

/** The command and its options. */
export function operatorCommand(): Command {
  return new Command('operator')
    .description('Run the operator of a cluster: blocks of pod addresses for nodes, identities for pods, clean-up.')
    .option(
      '--kubeconfig <file>',
      'how to reach the API server (default: the pod’s service account, $KUBECONFIG or ~/.kube/config)',
    )
    .option('--pool-v4 <cidr>', 'where nodes’ IPv4 blocks come from; "none" for no IPv4', '10.244.0.0/16')
    .option('--node-mask-v4 <bits>', 'prefix length of a node’s IPv4 block', wholeNumber(8, 30), 24)
    .option('--pool-v6 <cidr>', 'where nodes’ IPv6 blocks come from; "none" for no IPv6', 'fd00:10:244::/48')
    .option('--node-mask-v6 <bits>', 'prefix length of a node’s IPv6 block', wholeNumber(16, 126), 64)
    .option(
      '--ignore-label <key>',
      'a label that does not count for identities, beyond the usual ones (repeat)',
      collect,
    )
    .addOption(
      new Option('--policy-enforcement <mode>', 'what the agents were told of policies that do not say so themselves')
        .choices(['enforced', 'staged'])
        .default('enforced'),
    )
    .option('--identity-grace <minutes>', 'an identity that no pod has had for so long is collected', minutes, 15)
    .option(
      '--block-rest <minutes>',
      'the block of a node that is gone is kept for at least so long, and while pods of it exist',
      minutes,
      5,
    )
    .option(
      '--lease-duration <seconds>',
      'another operator takes over when this one has been silent for so long',
      wholeNumber(1, 600),
      10,
    )
    .option('--lease-namespace <name>', 'where the lease of the operator that leads is', 'kube-system')
    .option('--metrics-listen <address>', 'where metrics for Prometheus are served; "off": nowhere', '[::]:9966')
    .option('--log-level <level>', 'debug, info, warn or error', 'info')
    .addHelpText(
      'after',
      `
Examples:
  weir operator --kubeconfig admin.kubeconfig
  weir operator --pool-v4 none --pool-v6 2001:db8:1000::/44 --node-mask-v6 64   # IPv6 only
`,
    )
    .action(async (options) => {
      const { createLog } = await import('../log.ts');
      const { runOperator } = await import('../operator/operator.ts');
      const { poolProblem } = await import('../../connect/ipam/block-pool.ts');
      const { createKubeClient } = await import('../../kube/client.ts');
      const { findAccess } = await import('../../kube/kubeconfig.ts');
      const { ignoredLabelKeys } = await import('../../core/identity.ts');
      const { WeirError } = await import('../../core/errors.ts');
      const pools = [
        { cidr: options.poolV4 as string, blockBits: options.nodeMaskV4 as number },
        { cidr: options.poolV6 as string, blockBits: options.nodeMaskV6 as number },
      ].filter((pool) => pool.cidr !== 'none');
      if (pools.length === 0)
        throw new WeirError('CONFIG_INVALID', '--pool-v4 and --pool-v6 are both "none"', 'Give at least one pool.');
      for (const pool of pools) {
        const problem = poolProblem(pool);
        if (problem !== undefined) throw new WeirError('CONFIG_INVALID', problem);
      }
      const { createOperatorFacts, operatorRegistry } = await import('../operator/metrics.ts');
      const { offerMetrics } = await import('../offer-metrics.ts');
      const log = createLog('operator', options.logLevel);
      const facts = createOperatorFacts();
      await offerMetrics(options.metricsListen, operatorRegistry(facts, pools), log);
      const stop = new AbortController();
      for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => stop.abort());
      await runOperator(
        {
          client: createKubeClient(findAccess(options.kubeconfig)),
          log,
          facts,
          pools,
          ignoredLabels: [...ignoredLabelKeys, ...(options.ignoreLabel ?? [])],
          policyEnforcement: options.policyEnforcement,
          identityGraceMs: options.identityGrace * 60_000,
          blockRestMs: options.blockRest * 60_000,
          leaseMs: options.leaseDuration * 1000,
          leaseNamespace: options.leaseNamespace,
        },
        stop.signal,
      );
      process.exit(0);
    });
}
