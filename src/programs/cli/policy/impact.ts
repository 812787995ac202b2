// `weir policy impact`: who would be cut off, and who let in, by a policy that is staged or not applied yet, judging by the
// connections that the nodes have seen.
import { existsSync } from 'node:fs';
import type { Flow } from '../../../../proto/gen/flow/flow_pb.js';
import { WeirError } from '../../../core/errors.ts';
import { exitCodes } from '../../../core/exit-codes.ts';
import { type PolicyRow, policyKey, policyName } from '../../../core/rows.ts';
import {
  contextOfNode,
  type Impact,
  type ImpactRow,
  type NodePolicyModel,
  policyImpact,
  type SeenConnection,
} from '../../../secure/policy/impact.ts';
import { isPolicyManifest, policyObject } from '../../../secure/policy/manifests/offline-model.ts';
import { parsePolicy } from '../../../secure/policy/parse-policy.ts';
import { resolvePolicy } from '../../../secure/policy/resolve-policy.ts';
import { askNodes } from '../ask-nodes.ts';
import { flowRequest } from '../observe/flow-flags.ts';
import { readNode } from '../observe/node-stream.ts';
import { type Column, printRows, printValue } from '../output.ts';
import type { QueryOptions } from '../query-command.ts';
import { resolveTargets } from '../targets.ts';
import { readObjects } from './read-files.ts';

/** The flags. */
export interface ImpactFlags extends QueryOptions {
  readonly last: number;
  readonly since?: string;
  readonly exitCode?: boolean;
}

/** The policies with and without the one that is asked about. */
interface Sides {
  readonly what: string;
  without(node: NodePolicyModel): readonly PolicyRow[];
  withIt(node: NodePolicyModel): readonly PolicyRow[];
}

/** Runs the command. */
export async function impactCommand(policy: string, flags: ImpactFlags): Promise<void> {
  const answers = await askNodes<NodePolicyModel>(flags, '/v1/policy-model');
  const nodes = answers.flatMap(({ value }) => value ?? []);
  if (nodes.length === 0) throw new WeirError('AGENT_UNREACHABLE', 'no node tells what policy sees');
  const sides = policy === '-' || existsSync(policy) ? sidesOfFile(policy) : sidesOfName(policy, nodes);
  const impact = policyImpact(nodes, await seenConnections(flags), sides);
  if (flags.output === 'table') await printImpact(impact, sides.what, flags);
  else await printValue(impact, flags);
  if (flags.exitCode && impact.changed > 0) process.exitCode = exitCodes.failed;
}

/** A policy of the cluster, as if it were enforced and as if it were gone. */
function sidesOfName(text: string, nodes: readonly NodePolicyModel[]): Sides {
  const objects = new Map(nodes.flatMap((node) => node.objects.map((row) => [row.key, row])));
  const found = [...objects.values()].filter((row) => row.key === text || policyName(row) === text);
  if (found.length === 0) {
    throw new WeirError(
      'NOT_FOUND',
      `there is no policy ${text}, and no such file`,
      '`weir policy list` shows what there is; give namespace/name, or a file.',
    );
  }
  if (found.length > 1) {
    const keys = found.map((row) => row.key).join(', ');
    throw new WeirError('CONFIG_INVALID', `${text} may be ${keys}`, 'Give one of these.');
  }
  const [{ key }] = found as [(typeof found)[0]];
  return {
    what: key,
    without: ({ model }) => model.policies.filter((row) => keyOf(row) !== key),
    withIt: ({ model }) => model.policies.map((row) => (keyOf(row) === key ? { ...row, staged: false } : row)),
  };
}

/** Policies from a file, enforced, in place of those with their names. */
function sidesOfFile(path: string): Sides {
  const parsed = readObjects([path])
    .filter(isPolicyManifest)
    .map((manifest) => ({ manifest, ...parsePolicy(policyObject(manifest, 'default'))! }));
  if (parsed.length === 0)
    throw new WeirError('NOT_FOUND', `there is no policy in ${path}`, 'Give a file with policies.');
  for (const { manifest, problems } of parsed) {
    if (problems.length === 0) continue;
    const { line, column } = manifest.place(problems[0]!);
    throw new WeirError(
      'POLICY_INVALID',
      `${manifest.file}:${line}:${column}: ${problems[0]}`,
      '`weir policy validate` shows all problems.',
    );
  }
  const objects = parsed.flatMap(({ row }) => row ?? []);
  const keys = new Set(objects.map((row) => row.key));
  return {
    what: objects.map((row) => row.key).join(', '),
    without: ({ model }) => model.policies,
    withIt(node) {
      const own = objects.flatMap((object) =>
        resolvePolicy({ ...object, enforcement: 'enforced' }, contextOfNode(node)),
      );
      return [...node.model.policies.filter((row) => !keys.has(keyOf(row))), ...own];
    },
  };
}

function keyOf(row: PolicyRow): string {
  return policyKey(row.kind, row.namespace, row.name);
}

/** The beginnings of connections among the last flows of every node. */
async function seenConnections(flags: ImpactFlags): Promise<SeenConnection[]> {
  const { request } = flowRequest(
    { last: flags.last, ...(flags.since !== undefined && { since: flags.since }), filters: [] },
    Date.now(),
  );
  const { targets } = resolveTargets(flags);
  const perNode = await Promise.all(
    targets.map(async (target) => {
      const seen: SeenConnection[] = [];
      for await (const { response, timeNs } of readNode(target, request, targets.length)) {
        if (response.responseTypes.case !== 'flow') continue;
        const connection = connectionOf(response.responseTypes.value, Number(timeNs / 1_000_000n));
        if (connection !== undefined) seen.push({ node: response.nodeName || (target.node ?? ''), ...connection });
      }
      return seen;
    }),
  );
  return perNode.flat();
}

/** Undefined for what does not begin a connection: answers, and TCP without SYN. */
export function connectionOf(flow: Flow, timeMs: number): Omit<SeenConnection, 'node'> | undefined {
  if (flow.isReply || flow.IP === undefined) return undefined;
  const { source, destination } = flow.IP;
  const layer4 = flow.l4?.protocol;
  const common = { source, destination, timeMs };
  switch (layer4?.case) {
    case 'TCP': {
      const { sourcePort, destinationPort, flags } = layer4.value;
      if (!flags?.SYN) return undefined;
      return { ...common, sourcePort, protocol: 6, port: destinationPort };
    }
    case 'UDP':
    case 'SCTP': {
      const { sourcePort, destinationPort } = layer4.value;
      return { ...common, sourcePort, protocol: layer4.case === 'UDP' ? 17 : 132, port: destinationPort };
    }
    case 'ICMPv4':
    case 'ICMPv6':
      return { ...common, sourcePort: 0, protocol: layer4.case === 'ICMPv4' ? 1 : 58, port: layer4.value.type };
    default:
      return undefined;
  }
}

async function printImpact({ connections, changed, rows }: Impact, what: string, flags: ImpactFlags): Promise<void> {
  const columns: Column<ImpactRow>[] = [
    { title: 'EFFECT', value: (row) => row.effect },
    { title: 'FROM', value: (row) => row.from, shrinkTo: 12 },
    { title: 'TO', value: (row) => row.to, shrinkTo: 12 },
    { title: 'PORT', value: (row) => row.port },
    { title: 'CONNECTIONS', value: (row) => row.connections, alignRight: true },
    { title: 'FIRST', value: (row) => row.first },
    { title: 'LAST', value: (row) => row.last },
    { title: 'WITH IT', value: (row) => row.withIt, shrinkTo: 20 },
    { title: 'WITHOUT IT', value: (row) => row.withoutIt, wide: true },
  ];
  if (rows.length > 0) await printRows(columns, rows, flags, '');
  process.stdout.write(
    `${rows.length > 0 ? '\n' : ''}${what}: ${changed} of ${connections} connections seen would be otherwise.\n`,
  );
}
