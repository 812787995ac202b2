// Routes of `world` and of the control plane to the pods, so that packets pass both ways without translation.
import { isIPv6 } from 'node:net';
import type { Api, ApiObject } from './api.ts';
import { setPodRoutes } from './network.ts';
import { nodeAddresses } from './node.ts';
import type { LabRecord } from './state.ts';
import { waitFor } from './wait.ts';

/** The blocks of pod addresses that a node has been given, from Weir's object for it. */
export function podBlocks(weirNode: ApiObject | undefined): string[] {
  const blocks: unknown = weirNode?.spec?.podCIDRs;
  return Array.isArray(blocks) ? blocks.filter((each) => typeof each === 'string') : [];
}

/** Waits until every node has its blocks, and routes each of them to its node. */
export async function routePods(api: Api, record: LabRecord): Promise<void> {
  const routes = await waitFor(
    'the nodes’ blocks of pod addresses',
    async () => {
      const found = await api.list('/apis/weir.dev/v1alpha1/weirnodes');
      return record.nodes.flatMap((node) => {
        const blocks = podBlocks(found.find((each) => each.metadata.name === node.name));
        if (blocks.length === 0) throw new Error(`${node.name} has none`);
        return blocks.flatMap((cidr) => {
          const via = nodeAddresses(record, node).find((address) => isIPv6(address) === cidr.includes(':'));
          return via === undefined ? [] : [{ cidr, via }];
        });
      });
    },
    30_000,
    100,
  );
  await setPodRoutes(record.name, routes);
}
