// Gives nodes their blocks of pod addresses. Who has a block is decided by the API server: a block is claimed by making
// the object with its name. The block of a node that is gone is kept until nothing can have an address of it any more.

import { blockName, nextBlock, type Pool } from '../../connect/ipam/block-pool.ts';
import { deepEqual } from '../../core/equal.ts';
import type { ReadTable, Table } from '../../core/table.ts';
import { hasStatus, type KubeClient } from '../../kube/client.ts';
import { resourcePath } from '../../kube/resource.ts';
import { type WeirBlock, type WeirNode, weirResources } from '../../kube/weir/schemas.ts';
import type { Log } from '../log.ts';

/** A node as the API has it. */
export interface OperatorNode {
  readonly name: string;
  readonly addresses: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
}

/** WeirNode and WeirBlock objects by name. */
export type Named<T> = T & { readonly name: string };

/** What the blocks follow from. */
export interface NodeBlocksOptions {
  readonly client: KubeClient;
  readonly log: Log;
  readonly pools: readonly Pool[];
  readonly nodes: ReadTable<OperatorNode>;
  readonly weirNodes: Table<Named<WeirNode>>;
  readonly blocks: Table<Named<WeirBlock>>;
  /** Pods in the API that are bound to a node, and the names of its endpoint slices; undefined: not known yet. */
  readonly podsOf: (node: string) => number | undefined;
  readonly slicesOf: (node: string) => readonly string[] | undefined;
  /** The block of a node that is gone is kept for at least so long. */
  readonly restMs: number;
  /** Lets the API server hold a node's slices against its blocks, or not any more. */
  readonly bind: (node: string) => Promise<boolean>;
  readonly unbind: (node: string) => Promise<void>;
  /** Throws when one may not write any more. */
  readonly assertLeading: () => void;
  readonly nowMs: () => number;
}

const apiVersion = 'weir.dev/v1alpha1';
/** An agent that still runs writes its slices again: for so long nothing may have come. */
const slicesSettleMs = 5_000;

/** Brings the objects in step with the nodes, once. Failures are thrown: call it again. */
export function createNodeBlocks(options: NodeBlocksOptions): { reconcile(): Promise<void> } {
  const { client, log, pools, nodes, weirNodes, blocks, assertLeading, nowMs } = options;
  const goneSinceMs = new Map<string, number>();
  const withoutSlicesSinceMs = new Map<string, number>();
  const conflicts = new Set<string>();
  const bound = new Set<string>();

  /** Claims a block for a node; false when another has it. */
  async function claim(cidr: string, node: string): Promise<boolean> {
    const name = blockName(cidr);
    const known = blocks.get(name);
    if (known !== undefined) return known.node === node;
    assertLeading();
    try {
      const made = await client.create<WeirBlock>(weirResources.blocks, {
        apiVersion,
        kind: 'WeirBlock',
        metadata: { name },
        cidr,
        node,
      });
      blocks.upsert({ ...made, name });
      return true;
    } catch (error) {
      if (!hasStatus(error, 409)) throw error;
      const other = await client.get<WeirBlock>(weirResources.blocks, name);
      blocks.upsert({ ...other, name });
      return other.node === node;
    }
  }

  /** The blocks of a node: those it has, those claimed for it earlier, or new ones. */
  async function blocksFor(node: OperatorNode, has: readonly string[]): Promise<string[]> {
    const podCIDRs = [...has];
    for (const cidr of has) {
      if (await claim(cidr, node.name)) continue;
      if (!conflicts.has(cidr))
        log.error('two nodes have one block: delete the pods and the WeirNode of one of them', {
          cidr,
          node: node.name,
          other: blocks.get(blockName(cidr))?.node,
        });
      conflicts.add(cidr);
    }
    for (const pool of pools) {
      const six = pool.cidr.includes(':');
      if (podCIDRs.some((cidr) => cidr.includes(':') === six)) continue;
      const kept = [...blocks.rows()].find((row) => row.node === node.name && row.cidr.includes(':') === six);
      for (let block = kept?.cidr; ; ) {
        block ??= nextBlock(pool, taken());
        if (block === undefined) {
          log.error('IPAM_POOL_EXHAUSTED: no block is left for a node', { node: node.name, pool: pool.cidr });
          break;
        }
        if (await claim(block, node.name)) {
          podCIDRs.push(block);
          break;
        }
        block = undefined;
      }
    }
    return podCIDRs;
  }

  function taken(): Set<string> {
    const all = new Set([...blocks.rows()].map((row) => row.cidr));
    for (const row of weirNodes.rows()) for (const cidr of row.spec.podCIDRs) all.add(cidr);
    return all;
  }

  async function writeNode(node: OperatorNode): Promise<void> {
    const current = weirNodes.get(node.name);
    if (!bound.has(node.name)) {
      assertLeading();
      if (await options.bind(node.name)) bound.add(node.name);
    }
    const podCIDRs = await blocksFor(node, current?.spec.podCIDRs ?? []);
    const { labels } = node;
    const spec = { addresses: [...node.addresses], clusterPools: pools.map((pool) => pool.cidr), labels, podCIDRs };
    if (current === undefined || !deepEqual(current.spec, spec)) {
      assertLeading();
      const object = { apiVersion, kind: 'WeirNode', metadata: current?.metadata ?? { name: node.name }, spec };
      const written = await (current === undefined
        ? client.create<WeirNode>(weirResources.nodes, object)
        : client.replace<WeirNode>(weirResources.nodes, object));
      // Known now, and not when the watch brings it.
      weirNodes.upsert({ ...written, name: node.name });
      log.info('node has its blocks', { node: node.name, podCIDRs });
    }
    await explain(node.name, undefined);
  }

  /** Says in the node's objects why its blocks are kept; or that there is nothing to say. */
  async function explain(node: string, message: string | undefined): Promise<void> {
    for (const block of blocksOf(node)) {
      if (block.message === message) continue;
      assertLeading();
      const { name, message: _, ...rest } = block;
      const object = message === undefined ? rest : { ...rest, message };
      blocks.upsert({ ...(await client.replace<WeirBlock>(weirResources.blocks, object)), name });
    }
    const current = weirNodes.get(node);
    if (current === undefined || current.status?.message === message) return;
    assertLeading();
    const path = `${resourcePath(weirResources.nodes, undefined, node)}/status`;
    const written = await client.request<WeirNode>('PATCH', path, {
      body: { metadata: { resourceVersion: current.metadata.resourceVersion }, status: { message: message ?? null } },
      contentType: 'application/merge-patch+json',
    });
    weirNodes.upsert({ ...written, name: node });
  }

  const blocksOf = (node: string) => [...blocks.rows()].filter((row) => row.node === node);

  /** Why the blocks of a node that is gone cannot be given to another yet; undefined when they can. */
  async function keptBecause(node: string): Promise<string | undefined> {
    const sinceMs = goneSinceMs.get(node) ?? nowMs();
    goneSinceMs.set(node, sinceMs);
    const pods = options.podsOf(node);
    const slices = options.slicesOf(node);
    if (pods === undefined || slices === undefined) return 'the node is gone; its pods have not been read yet';
    if (pods > 0) return `the node is gone; ${pods} of its pods still exist: delete them once they surely do not run`;
    if (nowMs() - sinceMs < options.restMs)
      return `the node is gone; its blocks rest for ${Math.ceil(options.restMs / 1000)} s`;
    if (slices.length > 0) {
      withoutSlicesSinceMs.delete(node);
      for (const name of slices) {
        assertLeading();
        await ignoreMissing(client.delete(weirResources.endpointSlices, name));
      }
      return 'the node is gone; its agent may still run: its endpoint slices have to stay away';
    }
    const withoutMs = withoutSlicesSinceMs.get(node) ?? nowMs();
    withoutSlicesSinceMs.set(node, withoutMs);
    if (nowMs() - withoutMs < Math.min(slicesSettleMs, options.restMs))
      return 'the node is gone; its agent may still run: its endpoint slices have to stay away';
    return undefined;
  }

  async function releaseNode(node: string): Promise<void> {
    const first = !goneSinceMs.has(node);
    const message = await keptBecause(node);
    if (message !== undefined) {
      if (first) log.info('node is gone: its blocks are kept', { node, why: message });
      return explain(node, message);
    }
    const current = weirNodes.get(node);
    assertLeading();
    if (current !== undefined) await ignoreMissing(client.deleteExactly(weirResources.nodes, current));
    weirNodes.delete(node);
    for (const block of blocksOf(node)) {
      assertLeading();
      await ignoreMissing(client.deleteExactly(weirResources.blocks, block));
      blocks.delete(block.name);
      log.info('node is gone: its block is free', { node, block: block.cidr });
    }
    // Last: a slice that came now would be refused, because its node has no blocks.
    await options.unbind(node);
    bound.delete(node);
    goneSinceMs.delete(node);
    withoutSlicesSinceMs.delete(node);
  }

  return {
    async reconcile() {
      if (!nodes.initialized || !weirNodes.initialized || !blocks.initialized) return;
      // Those that have blocks first: what they have is taken, also when an earlier version did not claim it.
      const all = [...nodes.rows()].sort((a, b) => Number(weirNodes.has(b.name)) - Number(weirNodes.has(a.name)));
      for (const node of all) {
        goneSinceMs.delete(node.name);
        withoutSlicesSinceMs.delete(node.name);
        await writeNode(node);
      }
      const owners = new Set([
        ...[...weirNodes.rows()].map((row) => row.name),
        ...[...blocks.rows()].map((row) => row.node),
      ]);
      for (const name of owners) if (!nodes.has(name)) await releaseNode(name);
    },
  };
}

async function ignoreMissing(promise: Promise<unknown>): Promise<void> {
  try {
    await promise;
  } catch (error) {
    if (!hasStatus(error, 404)) throw error;
  }
}
