// What a flow says beyond the contract's fields: its `extensions`, read.
import { toJson } from '@bufbuild/protobuf';
import { anyUnpack, StructSchema } from '@bufbuild/protobuf/wkt';
import type { Flow } from '../../../../proto/gen/flow/flow_pb.js';

/** A process at an end of a flow. */
export interface FlowProcess {
  readonly execId: string;
  readonly binary: string;
  readonly pid: number;
  readonly arguments: string;
}

/** The processes at both ends, as far as they are known. */
export interface FlowProcesses {
  readonly source?: FlowProcess;
  readonly destination?: FlowProcess;
}

/** The members that commands read; others are there, too. */
export interface FlowMore {
  readonly report?: 'active' | 'end';
  readonly end_cause?: string;
  readonly closed_by?: string;
  readonly packets_sent?: number;
  readonly packets_received?: number;
  readonly bytes_sent?: number;
  readonly bytes_received?: number;
  readonly duration_ms?: number;
  readonly rtt_us?: number;
  readonly retransmits?: number;
  readonly reports_held_back?: number;
  readonly source_process?: ProcessMore;
  readonly destination_process?: ProcessMore;
}

interface ProcessMore {
  readonly exec_id?: string;
  readonly binary?: string;
  readonly pid?: number;
  readonly arguments?: string;
}

/** The extensions of a flow; empty where there are none, and where they are not what Weir writes. */
export function moreOf(flow: Flow): FlowMore {
  try {
    const struct = flow.extensions && anyUnpack(flow.extensions, StructSchema);
    return struct === undefined ? {} : (toJson(StructSchema, struct) as FlowMore);
  } catch {
    return {};
  }
}

/** The processes of a flow. */
export function processesOf(flow: Flow, more: FlowMore = moreOf(flow)): FlowProcesses {
  const { source_process: source, destination_process: destination } = more;
  return {
    ...(source && { source: processOf(source) }),
    ...(destination && { destination: processOf(destination) }),
  };
}

function processOf(more: ProcessMore): FlowProcess {
  return {
    execId: String(more.exec_id ?? ''),
    binary: String(more.binary ?? ''),
    pid: Number(more.pid ?? 0),
    arguments: String(more.arguments ?? ''),
  };
}

/** The last part of a program's path. */
export function baseName(binary: string): string {
  return binary.slice(binary.lastIndexOf('/') + 1);
}
