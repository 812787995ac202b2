// What somebody with rights in some namespaces sees of a flow. A field is shown because it is written here, never because
// nobody thought of it: a new field of the contract does not compile until it has its place.
import { create } from '@bufbuild/protobuf';
import {
  DNSSchema,
  type Endpoint,
  EndpointSchema,
  type Flow,
  FlowSchema,
  IPSchema,
  L7FlowType,
  Layer7Schema,
  type Policy,
  PolicySchema,
  type Service,
  TrafficDirection,
} from '../../../proto/gen/flow/flow_pb.js';
import { clusterIdentities } from '../../core/identity.ts';
import { parseLabel } from '../../core/labels.ts';
import { clusterName } from '../flows/filter-values.ts';
import { type ProcessView, redactExtensions } from './redact-extensions.ts';
import type { AccessRights, NamespaceRights, Redaction } from './rights.ts';

type FlowField = Exclude<keyof Flow, '$typeName' | '$unknown'>;

/** An end in a namespace that may be seen, one that is in none, or one of which nothing may be told. */
type EndView =
  | { readonly kind: 'own'; readonly rights: NamespaceRights }
  | { readonly kind: 'open' }
  | { readonly kind: 'hidden' };

/** The label of an end of which only this is told. */
const hiddenLabel = 'reserved:cluster';
/** Labels of what is in no namespace. */
const openSources = new Set(['reserved', 'cidr']);

/** Gives a flow another uuid that is always the same: in the one that it has is how many flows its node has seen. */
export type UuidOf = (uuid: string) => string;

/** The flow as it may be shown; undefined when no end of it is in a namespace that may be seen. */
export function redactFlow(flow: Flow, rights: AccessRights, uuidOf: UuidOf): Flow | undefined {
  const source = viewOf(flow.source, rights);
  const destination = viewOf(flow.destination, rights);
  const own = [source, destination].flatMap((each) => (each.kind === 'own' ? [each.rights] : []));
  if (own.length === 0) return undefined;
  const anyHidden = source.kind === 'hidden' || destination.kind === 'hidden';
  // Who may see it by one end sees it, whatever the other end's grant leaves out.
  const leavesOut = (redaction: Redaction) => own.every((each) => each.redactions.has(redaction));
  const withoutAddress = (view: EndView) => view.kind !== 'own' && leavesOut('addresses-of-others');
  const observer = observerOf(flow, source, destination);
  const dns = dnsOf(flow, source, destination, leavesOut);
  const namesShown = !leavesOut('dns');
  const egress = policiesOf(source, rights);
  const ingress = policiesOf(destination, rights);
  const lists = [
    [flow.egressAllowedBy, egress],
    [flow.egressDeniedBy, egress],
    [flow.ingressAllowedBy, ingress],
    [flow.ingressDeniedBy, ingress],
  ] as const;
  const everyPolicy = lists.every(([list, shown]) => shown(list).length === list.length);
  const shown = {
    time: flow.time,
    uuid: uuidOf(flow.uuid),
    emitter: flow.emitter,
    verdict: flow.verdict,
    dropReason: flow.dropReason,
    authType: flow.authType,
    // The other end's interface, and what carried the packet, are of no namespace's making.
    ethernet: undefined,
    tunnel: undefined,
    interface: undefined,
    socketCookie: 0n,
    cgroupId: 0n,
    proxyPort: 0,
    traceContext: undefined,
    ipTraceId: undefined,
    file: undefined,
    debugCapturePoint: 0,
    sockXlatePoint: 0,
    policyMatchType: 0,
    // How many flows one stands for, of whomever they are.
    aggregate: undefined,
    IP:
      flow.IP === undefined
        ? undefined
        : create(IPSchema, {
            source: withoutAddress(source) ? '' : flow.IP.source,
            destination: withoutAddress(destination) ? '' : flow.IP.destination,
            ipVersion: flow.IP.ipVersion,
            encrypted: flow.IP.encrypted,
          }),
    l4: flow.l4,
    source: endOf(flow.source, source),
    destination: endOf(flow.destination, destination),
    Type: flow.Type,
    // Where the other end runs is its own affair.
    nodeName: observer.kind === 'hidden' ? '' : flow.nodeName,
    nodeLabels: [],
    // Names are those that the pod at the other end asked for.
    sourceNames: destination.kind === 'own' && namesShown ? flow.sourceNames : [],
    destinationNames: source.kind === 'own' && namesShown ? flow.destinationNames : [],
    l7: dns,
    reply: flow.reply,
    eventType: flow.eventType,
    sourceService: serviceOf(flow.sourceService, rights),
    destinationService: serviceOf(flow.destinationService, rights),
    trafficDirection: flow.trafficDirection,
    traceObservationPoint: flow.traceObservationPoint,
    traceReason: flow.traceReason,
    dropReasonDesc: flow.dropReasonDesc,
    isReply: flow.isReply,
    Summary: summaryOf(flow, dns !== undefined && !leavesOut('addresses-of-others')),
    extensions: redactExtensions(
      flow.extensions,
      { source: processView(source), destination: processView(destination) },
      { egress: source.kind === 'own', ingress: destination.kind === 'own' },
    ),
    egressAllowedBy: egress(flow.egressAllowedBy),
    egressDeniedBy: egress(flow.egressDeniedBy),
    ingressAllowedBy: ingress(flow.ingressAllowedBy),
    ingressDeniedBy: ingress(flow.ingressDeniedBy),
    // It does not say which policy wanted it.
    policyLog: everyPolicy && !anyHidden ? flow.policyLog : [],
  } satisfies Record<FlowField, unknown>;
  return create(FlowSchema, shown);
}

/** Who an end is for these rights. What is not certainly outside of all namespaces is inside of one. */
function viewOf(end: Endpoint | undefined, rights: AccessRights): EndView {
  if (end === undefined) return { kind: 'hidden' };
  const { namespace, podName, identity } = end;
  const here = end.clusterName === '' || end.clusterName === clusterName;
  const own = here && namespace !== '' ? rights.get(namespace) : undefined;
  if (own !== undefined) return { kind: 'own', rights: own };
  const reserved = identity < clusterIdentities.first;
  return { kind: namespace === '' && podName === '' && reserved ? 'open' : 'hidden' };
}

function endOf(end: Endpoint | undefined, view: EndView): Endpoint {
  if (end === undefined || view.kind === 'hidden')
    return create(EndpointSchema, { labels: [hiddenLabel], clusterName });
  const { ID, identity, clusterName: cluster, namespace, podName, workloads } = end;
  if (view.kind === 'open')
    return create(EndpointSchema, {
      identity,
      clusterName: cluster,
      labels: end.labels.filter((text) => openSources.has(parseLabel(text).source)),
    });
  const labels = view.rights.redactions.has('labels') ? [] : end.labels;
  return create(EndpointSchema, { ID, identity, clusterName: cluster, namespace, labels, podName, workloads });
}

/** The end at whose node the flow was seen. */
function observerOf({ trafficDirection }: Flow, source: EndView, destination: EndView): EndView {
  if (trafficDirection === TrafficDirection.EGRESS) return source;
  if (trafficDirection === TrafficDirection.INGRESS) return destination;
  return source.kind === 'hidden' ? source : destination;
}

function serviceOf(service: Service | undefined, rights: AccessRights): Service | undefined {
  return service !== undefined && rights.has(service.namespace) ? service : undefined;
}

/** Those of a side that may be told: of its own namespaces, or of none. Revisions count changes in all of them. */
function policiesOf(side: EndView, rights: AccessRights): (list: readonly Policy[]) => Policy[] {
  if (side.kind !== 'own') return () => [];
  return (list) =>
    list
      .filter(({ namespace }) => namespace === '' || rights.has(namespace))
      .map(({ name, namespace, kind, labels }) => create(PolicySchema, { name, namespace, kind, labels: [...labels] }));
}

function processView(end: EndView): ProcessView {
  if (end.kind !== 'own' || !end.rights.processes) return 'hidden';
  return end.rights.redactions.has('arguments') ? 'without-arguments' : 'whole';
}

/** A message of DNS is of the pod that asks: a server is asked for names by everybody. */
function dnsOf(
  { l7 }: Flow,
  source: EndView,
  destination: EndView,
  leavesOut: (redaction: Redaction) => boolean,
): Flow['l7'] {
  if (l7?.record.case !== 'dns') return undefined;
  const client = l7.type === L7FlowType.RESPONSE ? destination : source;
  if (client.kind !== 'own' || client.rights.redactions.has('dns')) return undefined;
  const { query, ips, ttl, cnames, observationSource, rcode, qtypes, rrtypes } = l7.record.value;
  const shown = create(DNSSchema, {
    query,
    ips: leavesOut('addresses-of-others') ? [] : ips,
    ttl,
    cnames,
    observationSource,
    rcode,
    qtypes,
    rrtypes,
  });
  return create(Layer7Schema, { type: l7.type, latencyNs: l7.latencyNs, record: { case: 'dns', value: shown } });
}

/** Parts of a summary that speak of the connection alone. */
const summaryParts =
  /^(?:TCP(?: Flags: [A-Z, ]*)?|UDP|SCTP|ICMPv[46] \w+(?:\(\d+\))?(?: \([a-z ]+\))?|IP protocol \d+|open for [\d.]+ s|(?:closed|reset|expired|reopened|refused|no answer|unknown)(?: by the (?:client|server))? after [\d.]+ s|(?:sent|received) \d+ packets, \d+ bytes)$/;

function summaryOf({ Summary: text, l7 }: Flow, dnsShown: boolean): string {
  if (l7 !== undefined) return dnsShown ? text : '';
  return text
    .split('; ')
    .filter((part) => summaryParts.test(part))
    .join('; ');
}
