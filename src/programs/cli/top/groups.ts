// Whose traffic a flow is: by pod, workload, namespace, port, process or node.
import type { Endpoint, Flow } from '../../../../proto/gen/flow/flow_pb.js';
import { reservedName } from '../../../core/identity.ts';
import { baseName, processesOf } from '../observe/flow-more.ts';
import type { Grouping } from './choices.ts';

/** Whom a row is about; ports and nodes have no other end. */
export interface Group {
  readonly source?: string;
  readonly destination: string;
}

/** The row that a flow belongs to. */
export function groupOf(flow: Flow, by: Grouping): Group {
  switch (by) {
    case 'node':
      return { destination: flow.nodeName || '?' };
    case 'port':
      return { destination: portText(flow) };
    case 'process': {
      const { source, destination } = processesOf(flow);
      const name = (process: typeof source, side: 'source' | 'destination') =>
        process === undefined
          ? endName(flow, side, 'workload')
          : `${baseName(process.binary) || '?'} (${endName(flow, side, 'workload')})`;
      return { source: name(source, 'source'), destination: name(destination, 'destination') };
    }
    default:
      return { source: endName(flow, 'source', by), destination: endName(flow, 'destination', by) };
  }
}

/** An end as a row names it. What is outside of pods is called by its reserved identity, DNS name or address. */
export function endName(flow: Flow, side: 'source' | 'destination', by: 'pod' | 'workload' | 'namespace'): string {
  const end = flow[side];
  if (end?.podName) {
    if (by === 'namespace') return end.namespace;
    const [workload] = end.workloads;
    return `${end.namespace}/${by === 'workload' && workload?.name ? workload.name : end.podName}`;
  }
  const reserved = reservedOf(end);
  if (by !== 'pod') return reserved ?? address(flow, side);
  const [name] = side === 'source' ? flow.sourceNames : flow.destinationNames;
  return name ?? address(flow, side);
}

function reservedOf(end: Endpoint | undefined): string | undefined {
  return reservedName(end?.identity ?? 0);
}

function address(flow: Flow, side: 'source' | 'destination'): string {
  return flow.IP?.[side] || '?';
}

/** `tcp/5432`, of the end that was asked; the protocol alone where there are no ports. */
export function portText(flow: Flow): string {
  const { case: name, value } = flow.l4?.protocol ?? {};
  if (name === undefined) return 'other';
  if (value === undefined || !('destinationPort' in value)) return name.toLowerCase();
  return `${name.toLowerCase()}/${flow.isReply === true ? value.sourcePort : value.destinationPort}`;
}
