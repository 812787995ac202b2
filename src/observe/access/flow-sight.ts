// One stream of flows as somebody with rights in some namespaces gets it: what is asked of the nodes, and what of each
// response goes on. Rights may change while it runs.
import { hash } from 'node:crypto';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { FlowSchema } from '../../../proto/gen/flow/flow_pb.js';
import { type GetFlowsRequest, GetFlowsResponseSchema } from '../../../proto/gen/observer/observer_pb.js';
import { CelTooDear } from '../flows/cel-filter.ts';
import { compileFieldMask } from '../flows/field-mask.ts';
import { FilterError } from '../flows/filter-values.ts';
import { RpcCode, RpcError } from '../rpc/rpc-status.ts';
import { matchShown } from './match-shown.ts';
import { narrowRequest } from './narrow-request.ts';
import { redactFlow, type UuidOf } from './redact-flow.ts';
import type { AccessRights } from './rights.ts';

/** What a stream shows. */
export interface FlowSight {
  /** What is asked of the nodes, by the rights as they are now. */
  request(): GetFlowsRequest;
  /** The response to show instead of the one at `bytes[start..end)`; undefined when it is not to be seen. */
  show(bytes: Uint8Array, start: number, end: number): Uint8Array | undefined;
}

/** That something was lost is said so often at most: how often it happens depends on everybody's traffic. */
const lossEveryMs = 60_000;

/**
 * Makes the uuids of flows as they are shown. They are the same for all streams of a relay and as long as it runs; without
 * the key nobody gets back to the numbers in them.
 */
export function hiddenUuids(key: string): UuidOf {
  return (uuid) => {
    const hex = hash('sha256', `${key} ${uuid}`, 'hex');
    return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
  };
}

/** Checks the request and makes the sight; refusals are those of the agents. */
export function createFlowSight(options: {
  readonly request: GetFlowsRequest;
  readonly rights: () => AccessRights;
  readonly uuidOf: UuidOf;
  readonly nowMs?: () => number;
}): FlowSight {
  const { request, rights, uuidOf, nowMs = Date.now } = options;
  const invalid = (message: string) => new RpcError(RpcCode.invalidArgument, message);
  if (request.extensions !== undefined)
    throw invalid('extensions: who may see a part of the flows cannot look for processes');
  const paths = request.fieldMask?.paths ?? [];
  if (paths.length > 1024) throw invalid('field_mask: more than 1024 paths');
  const mask = paths.length === 0 ? undefined : compileFieldMask(FlowSchema, paths);
  if (mask !== undefined && 'unknown' in mask)
    throw invalid(`field_mask: a flow has no field ${JSON.stringify(mask.unknown.slice(0, 100))}`);
  let matches: ReturnType<typeof matchShown>;
  try {
    matches = matchShown(request.whitelist, request.blacklist);
  } catch (error) {
    if (error instanceof FilterError) throw invalid(error.message);
    throw error;
  }
  let lossSaidMs = Number.NEGATIVE_INFINITY;

  return {
    request: () => narrowRequest(request, rights()),
    show(bytes, start, end) {
      const { responseTypes, time } = fromBinary(GetFlowsResponseSchema, bytes.subarray(start, end), {
        readUnknownFields: false,
      });
      if (responseTypes.case === 'lostEvents') {
        if (nowMs() - lossSaidMs < lossEveryMs) return undefined;
        lossSaidMs = nowMs();
        return toBinary(
          GetFlowsResponseSchema,
          create(GetFlowsResponseSchema, {
            responseTypes: { case: 'lostEvents', value: {} },
            time: timestampFromMs(lossSaidMs),
          }),
        );
      }
      // News of nodes are the relay's own; an agent has none to tell.
      if (responseTypes.case !== 'flow') return undefined;
      const shown = redactFlow(responseTypes.value, rights(), uuidOf);
      if (shown === undefined || !isWanted(shown)) return undefined;
      const response = create(GetFlowsResponseSchema, { nodeName: shown.nodeName, time });
      if (mask === undefined) {
        response.responseTypes = { case: 'flow', value: shown };
        return toBinary(GetFlowsResponseSchema, response);
      }
      const masked = fromBinary(FlowSchema, mask.masking(toBinary(FlowSchema, shown)));
      response.responseTypes = { case: 'flow', value: masked };
      return toBinary(GetFlowsResponseSchema, response);
    },
  };

  function isWanted(flow: Parameters<typeof matches>[0]): boolean {
    try {
      return matches(flow);
    } catch (error) {
      if (error instanceof CelTooDear) throw new RpcError(RpcCode.resourceExhausted, error.message);
      throw error;
    }
  }
}
