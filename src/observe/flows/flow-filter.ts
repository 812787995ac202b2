// FlowFilters as predicates on rows, so that a flow nobody asked for is never built. A field that cannot be honoured is
// refused by its name: a filter that is silently ignored would show what was not asked for.
import { fromBinary } from '@bufbuild/protobuf';
import { type FlowFilter, FlowSchema } from '../../../proto/gen/flow/flow_pb.js';
import { isWorld, reservedIdentities } from '../../core/identity.ts';
import { cidrContains, hostCidr, parseAddress, parseCidr } from '../../core/ip.ts';
import { EventType } from '../../kernel/datapath.gen.ts';
import { compileCel } from './cel-filter.ts';
import { createFlowEncoder } from './encode-flow.ts';
import { endLabels, type FlowContext, flowEventType, flowSubType, flowUuid } from './flow-message.ts';
import type { FlowEnd, FlowRow } from './flow-row.ts';
import { verdictOf } from './flow-summary.ts';
import { parseLabelSelector } from './label-selector.ts';
import { compilePattern, compileWildcard, type TextMatch } from './safe-pattern.ts';
import { tcpFlagBits } from './tcp-flags.ts';

/** Whether a flow is wanted. */
export type FlowMatch = (row: FlowRow) => boolean;

/** What is wrong with a filter, beginning with the field's name. */
export class FilterError extends Error {}

const maxFilters = 1024;
const maxValues = 4096;
/** Expressions and patterns of all filters of a request: each of them is tried on each flow. */
const maxDear = 64;
const clusterName = 'default';

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
  add('node_labels', filter.nodeLabels, (text) => nodeLabelMatch(text, context));
  add('dns_query', filter.dnsQuery, (text) => {
    const matches = pattern('dns_query', text);
    return (row) => row.dns !== undefined && matches(row.dns.query);
  });
  add('experimental.cel_expression', filter.experimental?.celExpression ?? [], (text) => celMatch(text, context));
  // Flows carry nothing of these: such a filter is checked, and matches none.
  add('source_ip_xlated', filter.sourceIpXlated, (text) => ipMatch('source_ip_xlated', text, () => ''));
  add('interface', filter.interface, () => none);
  add('trace_id', filter.traceId, () => none);
  add('ip_trace_id', filter.ipTraceId, () => none);
  add('http_status_code', filter.httpStatusCode, (text) => {
    if (!/^[1-5](?:\d\d|\d?\+)$/.test(text))
      throw new FilterError(`http_status_code: ${JSON.stringify(text)} is no status, such as 404, 40+ or 5+`);
    return none;
  });
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
  if (!text.includes('/')) {
    const one = parseAddress(text);
    if (!one.ok) throw new FilterError(`${name}: ${one.reason}`);
    const cidr = hostCidr(one.value);
    return blockMatch(cidr, address);
  }
  const block = parseCidr(text);
  if (!block.ok) throw new FilterError(`${name}: ${block.reason}`);
  return blockMatch(block.value, address);
}

function blockMatch(block: ReturnType<typeof hostCidr>, address: (row: FlowRow) => string): FlowMatch {
  return (row) => {
    const parsed = parseAddress(address(row));
    return parsed.ok && cidrContains(block, parsed.value);
  };
}

/** `ns/prefix`, `ns/` for all pods of a namespace, `/prefix` in every namespace, `prefix` in namespace default. */
function podMatch(text: string): (end: FlowEnd) => boolean {
  const slash = text.indexOf('/');
  const namespace = slash < 0 ? 'default' : text.slice(0, slash);
  const prefix = text.slice(slash + 1);
  return (end) => end.pod !== '' && (namespace === '' || end.namespace === namespace) && end.pod.startsWith(prefix);
}

/** `ns/prefix`, `ns/` for all of a namespace, `prefix` in namespace default. */
function serviceMatch(text: string, side: 'source' | 'destination'): FlowMatch {
  const slash = text.indexOf('/');
  const namespace = slash < 0 ? 'default' : text.slice(0, slash);
  const prefix = text.slice(slash + 1);
  return (row) => {
    const service = row[`${side}Service`];
    return (
      service !== undefined && (namespace === '' || service.namespace === namespace) && service.name.startsWith(prefix)
    );
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
  const range = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text);
  const first = Number(range?.[1]);
  const last = Number(range?.[2] ?? range?.[1]);
  if (range === null || first > last || last > 65_535)
    throw new FilterError(`${name}: ${JSON.stringify(text)} is not a port, such as 80 or 8000-8999`);
  return (row) =>
    (row.protocol === 6 || row.protocol === 17 || row.protocol === 132) && port(row) >= first && port(row) <= last;
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

/** `node`, `cluster/node`, `cluster/`, with `*` for any characters. */
function nodeMatch(text: string, node: string): FlowMatch {
  const slash = text.indexOf('/');
  const cluster = slash < 0 ? '*' : text.slice(0, slash) || '*';
  const name = text.slice(slash + 1) || '*';
  const matches = wildcard('node_name', cluster)(clusterName) && wildcard('node_name', name)(node);
  return () => matches;
}

/** Names that were given for the address, `*` for any characters; the final dot may be left out. */
function nameMatch(name: string, text: string, side: 'source' | 'destination'): FlowMatch {
  const plain = (each: string) => each.toLowerCase().replace(/\.$/, '');
  const matches = wildcard(name, plain(text));
  return (row) => row[`${side}Names`].some((each) => matches(plain(each)));
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

function pattern(name: string, text: string): TextMatch {
  const compiled = compilePattern(text);
  if (!compiled.ok) throw new FilterError(`${name}: ${compiled.reason}`);
  return compiled.value;
}

function wildcard(name: string, text: string): TextMatch {
  const compiled = compileWildcard(text);
  if (compiled === undefined) throw new FilterError(`${name}: is longer than 512 characters`);
  return compiled;
}
