// FlowFilters as predicates on rows, so that a flow nobody asked for is never built. A field that cannot be honoured is
// refused by its name: a filter that is silently ignored would show what was not asked for.
import { fromBinary } from '@bufbuild/protobuf';
import { type FlowFilter, FlowSchema } from '../../../proto/gen/flow/flow_pb.js';
import { isWorld, reservedIdentities } from '../../core/identity.ts';
import { EventType } from '../../kernel/datapath.gen.ts';
import { compileCel } from './cel-filter.ts';
import { createFlowEncoder } from './encode-flow.ts';
import {
  addressMatch,
  clusterName,
  dnsNameMatch,
  FilterError,
  httpStatusMatch,
  nodeNameMatch,
  objectMatch,
  pattern,
  portRangeMatch,
} from './filter-values.ts';
import { endLabels, type FlowContext, flowEventType, flowSubType, flowUuid } from './flow-message.ts';
import type { FlowEnd, FlowRow } from './flow-row.ts';
import { verdictOf } from './flow-summary.ts';
import { parseLabelSelector } from './label-selector.ts';
import { tcpFlagBits } from './tcp-flags.ts';

/** Whether a flow is wanted. */
export type FlowMatch = (row: FlowRow) => boolean;

const maxFilters = 1024;
const maxValues = 4096;
/** Expressions and patterns of all filters of a request: each of them is tried on each flow. */
const maxDear = 64;

/** One predicate for a whitelist and a blacklist. */
export function compileFilters(
  whitelist: readonly FlowFilter[],
  blacklist: readonly FlowFilter[],
  context: FlowContext,
): FlowMatch {
  if (whitelist.length + blacklist.length > maxFilters) throw new FilterError(`more than ${maxFilters} filters`);
  const dear = [...whitelist, ...blacklist].reduce(
    (sum, { dnsQuery, experimental }) => sum + dnsQuery.length + (experimental?.celExpression.length ?? 0),
    0,
  );
  if (dear > maxDear) throw new FilterError(`more than ${maxDear} expressions and patterns`);
  const wanted = whitelist.map((filter) => compileFilter(filter, context));
  const unwanted = blacklist.map((filter) => compileFilter(filter, context));
  if (wanted.length === 0 && unwanted.length === 0) return () => true;
  return (row) => (wanted.length === 0 || wanted.some((match) => match(row))) && !unwanted.some((match) => match(row));
}

/** All fields of a filter that are set must match. */
export function compileFilter(filter: FlowFilter, context: FlowContext): FlowMatch {
  const matches: FlowMatch[] = [];
  /** One of the values must match. */
  function add<V>(name: string, values: readonly V[], compile: (value: V) => FlowMatch): void {
    if (values.length === 0) return;
    if (values.length > maxValues) throw new FilterError(`${name}: more than ${maxValues} values`);
    const any = values.map((value) => compile(value));
    matches.push(any.length === 1 ? any[0]! : (row) => any.some((match) => match(row)));
  }
  const ends = [
    ['source', (row: FlowRow) => row.source, (row: FlowRow) => row.sourceAddress, (row: FlowRow) => row.sourcePort],
    [
      'destination',
      (row: FlowRow) => row.destination,
      (row: FlowRow) => row.destination.address,
      (row: FlowRow) => row.destinationPort,
    ],
  ] as const;
  for (const [side, end, address, port] of ends) {
    const of = <K extends string>(field: K) => `${side}${field}` as `${typeof side}${K}`;
    add(`${side}_ip`, filter[of('Ip')], (text) => ipMatch(`${side}_ip`, text, address));
    add(`${side}_fqdn`, filter[of('Fqdn')], (text) => nameMatch(`${side}_fqdn`, text, side));
    add(`${side}_pod`, filter[of('Pod')], (text) => on(end, podMatch(text)));
    add(`${side}_label`, filter[of('Label')], (text) => on(end, labelMatch(`${side}_label`, text)));
    add(`${side}_service`, filter[of('Service')], (text) => serviceMatch(text, side));
    add(`${side}_workload`, filter[of('Workload')], ({ name, kind }) =>
      on(
        end,
        (each) =>
          each.workloadName !== '' &&
          (name === '' || each.workloadName === name) &&
          (kind === '' || each.workloadKind === kind),
      ),
    );
    add(`${side}_cluster_name`, filter[of('ClusterName')], (name) =>
      on(end, (each) => !isWorld(each.identity) && name === clusterName),
    );
    // Here the world has an identity for each family; who asks for the one of neither means both.
    add(`${side}_identity`, filter[of('Identity')], (identity) =>
      on(end, (each) => (identity === reservedIdentities.world ? isWorld(each.identity) : each.identity === identity)),
    );
    add(`${side}_port`, filter[of('Port')], (text) => portMatch(`${side}_port`, text, port));
  }
  add('traffic_direction', filter.trafficDirection, (direction) => (row) => row.direction === (direction as number));
  add('verdict', filter.verdict, (verdict) => (row) => verdictOf(row) === (verdict as number));
  add(
    'drop_reason_desc',
    filter.dropReasonDesc,
    (reason) => (row) => row.type === EventType.EVENT_DROP && row.reason === (reason as number),
  );
  add('event_type', filter.eventType, ({ type, matchSubType, subType }) => (row) => {
    if (type !== flowEventType(row)) return false;
    return !matchSubType || flowSubType(row) === subType;
  });
  add('protocol', filter.protocol, protocolMatch);
  add('reply', filter.reply, (reply) => (row) => row.reply === reply);
  add('tcp_flags', filter.tcpFlags, (flags) => {
    const bits = Object.entries(tcpFlagBits).reduce(
      (sum, [name, bit]) => (flags[name as keyof typeof tcpFlagBits] ? sum | bit : sum),
      0,
    );
    if (flags.NS) return () => false;
    return (row) => row.protocol === 6 && (row.tcpFlags & bits) === bits;
  });
  add('node_name', filter.nodeName, (pattern) => nodeMatch(pattern, context.nodeName));
  add('ip_version', filter.ipVersion, (version) => (row) => (row.ipv6 ? 2 : 1) === (version as number));
  add('uuid', filter.uuid, (uuid) => (row) => flowUuid(context.run, row.seq) === uuid.toLowerCase());
  add('encrypted', filter.encrypted, (encrypted) => () => !encrypted);
  add(
    'interface',
    filter.interface,
    ({ name, index }) =>
      (row) =>
        row.ifindex !== 0 &&
        (index === 0 || row.ifindex === index) &&
        (name === '' || context.deviceName?.(row.ifindex) === name),
  );
  add('node_labels', filter.nodeLabels, (text) => nodeLabelMatch(text, context));
  add('dns_query', filter.dnsQuery, (text) => {
    const matches = pattern('dns_query', text);
    return (row) => row.dns !== undefined && matches(row.dns.query);
  });
  add('experimental.cel_expression', filter.experimental?.celExpression ?? [], (text) => celMatch(text, context));
  // Flows carry nothing of these: such a filter is checked, and matches none.
  add('source_ip_xlated', filter.sourceIpXlated, (text) => ipMatch('source_ip_xlated', text, () => ''));
  add('trace_id', filter.traceId, () => none);
  add('ip_trace_id', filter.ipTraceId, () => none);
  add('http_status_code', filter.httpStatusCode, (text) => httpStatusMatch(text) && none);
  add('http_method', filter.httpMethod, () => none);
  add('http_path', filter.httpPath, (text) => pattern('http_path', text) && none);
  add('http_url', filter.httpUrl, (text) => pattern('http_url', text) && none);
  add('http_header', filter.httpHeader, () => none);
  return (row) => matches.every((match) => match(row));
}

function on(end: (row: FlowRow) => FlowEnd, match: (end: FlowEnd) => boolean): FlowMatch {
  return (row) => match(end(row));
}

function ipMatch(name: string, text: string, address: (row: FlowRow) => string): FlowMatch {
  const matches = addressMatch(name, text);
  return (row) => matches(address(row));
}

function podMatch(text: string): (end: FlowEnd) => boolean {
  const matches = objectMatch(text);
  return (end) => matches(end.namespace, end.pod);
}

function serviceMatch(text: string, side: 'source' | 'destination'): FlowMatch {
  const matches = objectMatch(text);
  return (row) => {
    const service = row[`${side}Service`];
    return service !== undefined && matches(service.namespace, service.name);
  };
}

function labelMatch(name: string, text: string): (end: FlowEnd) => boolean {
  const selector = parseLabelSelector(text);
  if (!selector.ok) throw new FilterError(`${name}: ${selector.reason}`);
  // Ends are few and flows many.
  const known = new WeakMap<FlowEnd, boolean>();
  return (end) => {
    const before = known.get(end);
    if (before !== undefined) return before;
    const result = selector.value(endLabels(end));
    known.set(end, result);
    return result;
  };
}

function portMatch(name: string, text: string, port: (row: FlowRow) => number): FlowMatch {
  const matches = portRangeMatch(name, text);
  return (row) => (row.protocol === 6 || row.protocol === 17 || row.protocol === 132) && matches(port(row));
}

const protocols: Readonly<Record<string, readonly number[]>> = {
  tcp: [6],
  udp: [17],
  sctp: [132],
  icmp: [1, 58],
  icmpv4: [1],
  icmpv6: [58],
  vrrp: [112],
  igmp: [2],
};

/** Protocols that packets carry within those; of the others than DNS flows have nothing yet. */
const innerProtocols: Readonly<Record<string, FlowMatch>> = {
  dns: (row) => row.dns !== undefined,
  http: () => false,
  kafka: () => false,
};

function protocolMatch(text: string): FlowMatch {
  const name = text.toLowerCase();
  const inner = Object.hasOwn(innerProtocols, name) ? innerProtocols[name] : undefined;
  if (inner !== undefined) return inner;
  const numbers = Object.hasOwn(protocols, name) ? protocols[name] : undefined;
  if (numbers === undefined) {
    const known = [...Object.keys(protocols), ...Object.keys(innerProtocols)];
    throw new FilterError(`protocol: ${JSON.stringify(text)} is none of ${known.join(', ')}`);
  }
  return (row) => numbers.includes(row.protocol);
}

const none: FlowMatch = () => false;

function nodeMatch(text: string, node: string): FlowMatch {
  const matches = nodeNameMatch(text)(node);
  return () => matches;
}

/** Names that were given for the address. */
function nameMatch(name: string, text: string, side: 'source' | 'destination'): FlowMatch {
  const matches = dnsNameMatch(name, text);
  return (row) => row[`${side}Names`].some(matches);
}

function nodeLabelMatch(text: string, context: FlowContext): FlowMatch {
  const selector = parseLabelSelector(text);
  if (!selector.ok) throw new FilterError(`node_labels: ${selector.reason}`);
  const { nodeLabels = () => [] } = context;
  let known: readonly string[] | undefined;
  let result = false;
  return () => {
    const labels = nodeLabels();
    if (labels !== known) {
      known = labels;
      result = selector.value(labels);
    }
    return result;
  };
}

function celMatch(text: string, context: FlowContext): FlowMatch {
  const compiled = compileCel(text);
  if (!compiled.ok) throw new FilterError(`experimental.cel_expression: ${compiled.reason}`);
  const encoder = createFlowEncoder(context);
  return (row) => compiled.value(fromBinary(FlowSchema, encoder.flow(row)));
}
