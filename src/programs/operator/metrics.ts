// What the operator tells Prometheus. One that waits for its turn has nothing to say but that.
import { collectDefaultMetrics, Registry } from 'prom-client';
import type { Pool } from '../../connect/ipam/block-pool.ts';
import { cidrContains, parseCidr } from '../../core/ip.ts';
import { metricsIn } from '../../observe/metrics/registered.ts';
import { version } from '../cli/version.ts';

/** What the operator knows of its work; its parts write here, and only while it leads. */
export interface OperatorFacts {
  leading: boolean;
  /** Whether each kind of object is followed. */
  readonly watches: Map<string, boolean>;
  identities: () => { readonly used: number; readonly capacity: number };
  /** Blocks that nodes have. */
  blocks: () => Iterable<{ readonly cidr: string }>;
  loadBalancers: () => { readonly pools: number; readonly addresses: number; readonly waiting: number };
  readonly written: { policyStatuses: number; identities: number };
}

/** Facts of an operator that has done nothing yet. */
export function createOperatorFacts(): OperatorFacts {
  return { ...idle(), leading: false, watches: new Map(), written: { policyStatuses: 0, identities: 0 } };
}

/** What a term of office has filled is empty when it ends. */
export function forgetTerm(facts: OperatorFacts): void {
  facts.leading = false;
  facts.watches.clear();
  Object.assign(facts, idle());
}

function idle(): Pick<OperatorFacts, 'identities' | 'blocks' | 'loadBalancers'> {
  return {
    identities: () => ({ used: 0, capacity: 0 }),
    blocks: () => [],
    loadBalancers: () => ({ pools: 0, addresses: 0, waiting: 0 }),
  };
}

/** The registry. */
export function operatorRegistry(facts: OperatorFacts, pools: readonly Pool[]): Registry {
  const registry = new Registry();
  const { gauge, gauges, counter } = metricsIn(registry);
  collectDefaultMetrics({ register: registry, prefix: 'weir_operator_' });
  gauges('weir_operator_build_info', 'The version that runs.', ['version'], () => [[{ version }, 1]]);
  gauge('weir_operator_leading', 'Whether this operator works, or waits while another does.', () =>
    facts.leading ? 1 : 0,
  );
  gauges('weir_operator_identities', 'Numbers of identities.', ['state'], () => {
    const { used, capacity } = facts.identities();
    return states(used, capacity);
  });
  gauges('weir_operator_blocks', 'Blocks of pod addresses.', ['pool', 'state'], () => {
    if (!facts.leading) return [];
    const blocks = [...facts.blocks()].flatMap(({ cidr }) => blockOf(cidr) ?? []);
    return pools.flatMap((pool) => {
      const whole = blockOf(pool.cidr);
      if (whole === undefined) return [];
      const used = blocks.filter((each) => cidrContains(whole, each)).length;
      return states(used, 2 ** (pool.blockBits - whole.prefixBits)).map(
        ([labels, value]) => [{ pool: pool.cidr, ...labels }, value] as const,
      );
    });
  });
  gauge('weir_operator_pools', 'Pools that blocks are taken from.', () => pools.length);
  gauges('weir_operator_watch_connected', 'Whether a kind of object is followed.', ['resource'], () =>
    [...facts.watches].map(([resource, connected]) => [{ resource }, connected ? 1 : 0] as const),
  );
  counter(
    'weir_operator_policy_statuses_written_total',
    'Statuses of policies that were written.',
    () => facts.written.policyStatuses,
  );
  counter('weir_operator_identities_created_total', 'Identities that were created.', () => facts.written.identities);
  gauge('weir_operator_load_balancer_pools', 'Pools of load balancer addresses.', () => facts.loadBalancers().pools);
  gauge(
    'weir_operator_load_balancer_waiting',
    'Services that have none of the addresses they want.',
    () => facts.loadBalancers().waiting,
  );
  gauge(
    'weir_operator_load_balancer_addresses',
    'Addresses that services have.',
    () => facts.loadBalancers().addresses,
  );
  return registry;
}

function states(used: number, capacity: number) {
  return [
    [{ state: 'used' }, used],
    [{ state: 'free' }, Math.max(0, capacity - used)],
  ] as const;
}

function blockOf(cidr: string) {
  const parsed = parseCidr(cidr);
  return parsed.ok ? parsed.value : undefined;
}
