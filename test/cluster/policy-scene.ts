// What tests of policies of all kinds share: applying one and knowing where it is in force, and an open connection that
// policy cuts and frees.
import assert from 'node:assert/strict';
import { type ApiObject, podCommand } from '../../lab/lab.ts';
import { compileTool } from './compile-tool.ts';
import type { Scene } from './scene.ts';
import { type SharedLab, waitFor } from './shared-lab.ts';
import { askSteadily, type Steady } from './steady.ts';

/** Where objects of each kind are, with their apiVersion. */
const collections: Readonly<Record<string, readonly [group: string, plural: string]>> = {
  NetworkPolicy: ['networking.k8s.io/v1', 'networkpolicies'],
  CiliumNetworkPolicy: ['cilium.io/v2', 'ciliumnetworkpolicies'],
  CiliumClusterwideNetworkPolicy: ['cilium.io/v2', 'ciliumclusterwidenetworkpolicies'],
  CiliumCIDRGroup: ['cilium.io/v2', 'ciliumcidrgroups'],
  ClusterNetworkPolicy: ['policy.networking.k8s.io/v1alpha2', 'clusternetworkpolicies'],
};

/** A policy as it is written. */
export interface Written {
  readonly kind: string;
  readonly name: string;
  readonly spec?: object;
  readonly namespace?: string;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** A policy as an agent shows it. */
export interface ShownPolicy {
  readonly key: string;
  readonly name: string;
  readonly uid: string;
  readonly generation: number;
  readonly enforcement: string;
  readonly staged: boolean;
  readonly error?: string;
}

/** Works on policies of all kinds. */
export interface Policies {
  path(policy: Written): string;
  manifest(policy: Written): object;
  /** Applies and answers as soon as the API server has. */
  put(policy: Written): Promise<ApiObject>;
  /** The same, and waits until all nodes have it. */
  enforce(policy: Written): Promise<ApiObject>;
  remove(...policies: readonly Written[]): Promise<void>;
  /** Removes all that were put, and waits until no node has them. */
  removeAll(): Promise<void>;
  conditions(policy: Written): Promise<Readonly<Record<string, string>>>;
}

/** Makes it. `nodes` are those that must have a policy. */
export function createPolicies(lab: SharedLab, nodes: readonly string[]): Policies {
  const made = new Map<string, Written>();
  const collection = ({ kind, namespace }: Written): string => {
    const [group, plural] = collections[kind]!;
    return `/apis/${group}/${namespace === undefined ? '' : `namespaces/${namespace}/`}${plural}`;
  };
  const shown = async (node: string): Promise<ShownPolicy[]> => {
    const { pending, synced } = await lab.agent<{ pending: boolean; synced: boolean }>(node, '/v1/sync');
    const rows = await lab.agent<ShownPolicy[]>(node, '/v1/policies');
    if (pending || !synced) throw new Error(`${node} is not in step`);
    return rows;
  };
  const policies: Policies = {
    path: (policy) => `${collection(policy)}/${policy.name}`,
    manifest: ({ kind, name, namespace, annotations, spec }) => ({
      apiVersion: collections[kind]![0],
      kind,
      metadata: { name, ...(namespace && { namespace }), ...(annotations && { annotations }) },
      spec,
    }),
    async put(policy) {
      made.set(policies.path(policy), policy);
      await lab.apply([policies.manifest(policy)]);
      return lab.api.get(policies.path(policy));
    },
    async enforce(policy) {
      const object = await policies.put(policy);
      await waitFor(
        `all nodes to have ${policy.name}`,
        async () => {
          for (const node of nodes) {
            const row = (await shown(node)).find((each) => each.uid === object.metadata.uid);
            if (row?.generation !== object.metadata.generation) return undefined;
          }
          return true;
        },
        10_000,
        20,
      );
      return object;
    },
    async remove(...gone) {
      for (const policy of gone) {
        await lab.api.delete(policies.path(policy));
        made.delete(policies.path(policy));
      }
      await waitFor(
        'no node to have them',
        async () => {
          for (const node of nodes) {
            const keys = new Set((await shown(node)).map((row) => row.key));
            const has = gone.some(({ kind, namespace, name }) =>
              keys.has(namespace === undefined ? `${kind}/${name}` : `${kind}/${namespace}/${name}`),
            );
            if (has) return undefined;
          }
          return true;
        },
        10_000,
        20,
      );
    },
    removeAll: () => policies.remove(...made.values()),
    async conditions(policy) {
      const { status } = await lab.api.get(policies.path(policy));
      const list = (status?.conditions ?? []) as { type: string; status: string; reason: string }[];
      return Object.fromEntries(list.map(({ type, status, reason }) => [type, `${status} ${reason}`]));
    },
  };
  return policies;
}

/** Traffic from a pod to addresses, over connections that stay open and over new ones. */
export function traffic(
  lab: SharedLab,
  scene: Scene,
  from: string,
  addresses: readonly string[],
  port: number,
): Steady {
  return askSteadily(
    podCommand(lab.record, scene.pod(from), [compileTool('steady'), 'ask', String(port), '5', ...addresses]),
  );
}

/** Resolves when traffic is cut: new losses, and nothing passes between two of them. */
export async function isCut(what: string, steady: Steady): Promise<void> {
  let before = steady.counts();
  await waitFor(
    `${what} to be cut`,
    async () => {
      const now = steady.counts();
      if (now.lost < before.lost + 4) return undefined;
      const quiet = now.kept === before.kept && now.udp === before.udp && now.new === before.new;
      before = now;
      return quiet;
    },
    10_000,
    20,
  );
}

/** Traffic passes, is cut by one change and freed by another. */
export async function isCutAndFreed(
  what: string,
  steady: Steady,
  change: { readonly cut: () => Promise<unknown>; readonly free: () => Promise<unknown> },
): Promise<void> {
  try {
    await steady.more(20);
    await change.cut();
    await isCut(what, steady);
    await change.free();
    await steady.more(20);
  } finally {
    const { losses } = await steady.stop();
    assert.doesNotMatch(losses, /refused/i);
  }
}
