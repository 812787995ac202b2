// What the nodes are asked for somebody who may see a part: no flow that will be shown is missing in it, and little else
// comes. What it lets through is looked at again when it is there.
import { create } from '@bufbuild/protobuf';
import { type FlowFilter, FlowFilterSchema } from '../../../proto/gen/flow/flow_pb.js';
import type { GetFlowsRequest } from '../../../proto/gen/observer/observer_pb.js';
import type { AccessRights } from './rights.ts';

type FilterField = Exclude<keyof FlowFilter, '$typeName' | '$unknown'>;

/**
 * What becomes of a field by hiding: `same` in every flow; `fewer` when what matches the shown flow matches the whole one, too;
 * `other` when even that is not so, as with labels that must not be there.
 */
const fieldKinds: Readonly<Record<FilterField, 'same' | 'fewer' | 'other'>> = {
  uuid: 'other',
  sourceIp: 'fewer',
  sourceIpXlated: 'fewer',
  sourcePod: 'fewer',
  sourceFqdn: 'fewer',
  sourceLabel: 'other',
  sourceService: 'fewer',
  sourceWorkload: 'fewer',
  sourceClusterName: 'other',
  destinationIp: 'fewer',
  destinationPod: 'fewer',
  destinationFqdn: 'fewer',
  destinationLabel: 'other',
  destinationService: 'fewer',
  destinationWorkload: 'fewer',
  destinationClusterName: 'other',
  trafficDirection: 'same',
  verdict: 'same',
  dropReasonDesc: 'same',
  interface: 'other',
  eventType: 'same',
  httpStatusCode: 'other',
  protocol: 'fewer',
  sourcePort: 'same',
  destinationPort: 'same',
  reply: 'same',
  // Agents take few patterns, and here each filter is asked twice.
  dnsQuery: 'other',
  sourceIdentity: 'other',
  destinationIdentity: 'other',
  httpMethod: 'other',
  httpPath: 'other',
  httpUrl: 'other',
  httpHeader: 'other',
  tcpFlags: 'same',
  nodeName: 'fewer',
  nodeLabels: 'other',
  ipVersion: 'same',
  traceId: 'other',
  ipTraceId: 'other',
  encrypted: 'same',
  experimental: 'other',
};

/** Agents take no more filters; and no more namespaces in all of them, so that the request stays one that they take. */
const maxFilters = 1024;
const maxValues = 4096;

/** The request for the nodes. Field masks and what is counted are for whoever sees what is shown. */
export function narrowRequest(request: GetFlowsRequest, rights: AccessRights): GetFlowsRequest {
  const pods = [...rights.keys()].map((namespace) => `${namespace}/`);
  const given = request.whitelist.length > 0 ? request.whitelist : [create(FlowFilterSchema)];
  const many = 2 * given.length > maxFilters || given.length * pods.length > maxValues;
  const asked = pods.length > maxValues ? [] : many ? [create(FlowFilterSchema)] : given;
  return {
    ...request,
    fieldMask: undefined,
    whitelist: asked.flatMap((filter) => {
      const wide = only(filter, ['same', 'fewer']);
      // Values of a field are alternatives: where the client has its own, they are as good.
      return [
        { ...wide, sourcePod: wide.sourcePod.length > 0 ? wide.sourcePod : pods },
        { ...wide, destinationPod: wide.destinationPod.length > 0 ? wide.destinationPod : pods },
      ];
    }),
    // Only what leaves out the same of the shown flows: by what is missing one would see what is hidden.
    blacklist: request.blacklist.filter((filter) => isOnly(filter, 'same')),
  };
}

function only(filter: FlowFilter, kinds: readonly string[]): FlowFilter {
  const kept: Record<string, unknown> = {};
  for (const [field, kind] of Object.entries(fieldKinds))
    if (kinds.includes(kind)) kept[field] = filter[field as FilterField];
  return create(FlowFilterSchema, kept);
}

function isOnly(filter: FlowFilter, kind: string): boolean {
  return Object.entries(fieldKinds).every(([field, own]) => {
    if (own === kind) return true;
    const value = filter[field as FilterField];
    return value === undefined || (Array.isArray(value) && value.length === 0);
  });
}
