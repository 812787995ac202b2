// Filters of a request as predicates on messages: for flows that were written to a file. They say the same as those that
// an agent applies to its rows, and know what other programs put into flows: requests of HTTP, interfaces, trace ids.
import {
  type DropReason,
  type Flow,
  type FlowFilter,
  type IPVersion,
  type TrafficDirection,
  Verdict,
} from '../../../../proto/gen/flow/flow_pb.js';
import type { GetFlowsRequest } from '../../../../proto/gen/observer/observer_pb.js';
import { isWorld, reservedIdentities } from '../../../core/identity.ts';
import { compileCel } from '../../../observe/flows/cel-filter.ts';
import {
  addressMatch,
  dnsNameMatch,
  FilterError,
  httpStatusMatch,
  nodeNameMatch,
  objectMatch,
  pattern,
  portRangeMatch,
} from '../../../observe/flows/filter-values.ts';
import { parseLabelSelector } from '../../../observe/flows/label-selector.ts';
import { requestedProcesses } from '../../../observe/flows/request-extensions.ts';
import { tcpFlagBits } from '../../../observe/flows/tcp-flags.ts';
import { processesOf } from './flow-more.ts';

/** Whether a flow is wanted. */
export type MessageMatch = (flow: Flow) => boolean;

/** The predicate of a request: its lists of filters, its processes and its times. Throws a FilterError. */
export function compileMessageFilters(request: GetFlowsRequest): MessageMatch {
  const wanted = request.whitelist.map(compileMessageFilter);
  const unwanted = request.blacklist.map(compileMessageFilter);
  const { process, notProcess } = requestedProcesses(request.extensions);
  const isAt = (match: typeof process, flow: Flow) => {
    const { source, destination } = processesOf(flow);
    return (source !== undefined && match!(source)) || (destination !== undefined && match!(destination));
  };
  const ns = (time: { seconds: bigint; nanos: number }) => time.seconds * 1_000_000_000n + BigInt(time.nanos);
  const since = request.since && ns(request.since);
  const until = request.until && ns(request.until);
  return (flow) => {
    const time = flow.time === undefined ? undefined : ns(flow.time);
    return (
      (since === undefined || (time !== undefined && time >= since)) &&
      (until === undefined || (time !== undefined && time <= until)) &&
      (wanted.length === 0 || wanted.some((match) => match(flow))) &&
      !unwanted.some((match) => match(flow)) &&
      (process === undefined || isAt(process, flow)) &&
      (notProcess === undefined || !isAt(notProcess, flow))
    );
  };
}

/** All fields of a filter that are set must match, each with one of its values. */
export function compileMessageFilter(filter: FlowFilter): MessageMatch {
  const matches: MessageMatch[] = [];
  function add<V>(values: readonly V[], compile: (value: V) => MessageMatch): void {
    if (values.length === 0) return;
    const any = values.map(compile);
    matches.push((flow) => any.some((match) => match(flow)));
  }
  for (const side of ['source', 'destination'] as const) {
    const of = <K extends string>(field: K) => `${side}${field}` as `${typeof side}${K}`;
    add(filter[of('Ip')], (text) => {
      const match = addressMatch(`${side}_ip`, text);
      return (flow) => match(flow.IP?.[side] ?? '');
    });
    add(filter[of('Fqdn')], (text) => {
      const match = dnsNameMatch(`${side}_fqdn`, text);
      return (flow) => flow[of('Names')].some(match);
    });
    add(filter[of('Pod')], (text) => {
      const match = objectMatch(text);
      return (flow) => match(flow[side]?.namespace ?? '', flow[side]?.podName ?? '');
    });
    add(filter[of('Label')], (text) => {
      const match = selector(`${side}_label`, text);
      return (flow) => match(flow[side]?.labels ?? []);
    });
    add(filter[of('Service')], (text) => {
      const match = objectMatch(text);
      return (flow) => match(flow[of('Service')]?.namespace ?? '', flow[of('Service')]?.name ?? '');
    });
    add(
      filter[of('Workload')],
      ({ name, kind }) =>
        (flow) =>
          (flow[side]?.workloads ?? []).some(
            (each) => (name === '' || each.name === name) && (kind === '' || each.kind === kind),
          ),
    );
    add(filter[of('ClusterName')], (name) => (flow) => flow[side]?.clusterName === name);
    add(filter[of('Identity')], (identity) => (flow) => {
      const own = flow[side]?.identity ?? 0;
      return identity === reservedIdentities.world ? isWorld(own) : own === identity;
    });
    add(filter[of('Port')], (text) => {
      const match = portRangeMatch(`${side}_port`, text);
      return (flow) => {
        const port = portOf(flow, side);
        return port !== undefined && match(port);
      };
    });
  }
  add(filter.trafficDirection, (direction: TrafficDirection) => (flow) => flow.trafficDirection === direction);
  add(filter.verdict, (verdict: Verdict) => (flow) => flow.verdict === verdict);
  add(
    filter.dropReasonDesc,
    (reason: DropReason) => (flow) => flow.verdict === Verdict.DROPPED && flow.dropReasonDesc === reason,
  );
  add(
    filter.eventType,
    ({ type, matchSubType, subType }) =>
      (flow) =>
        flow.eventType?.type === type && (!matchSubType || flow.eventType.subType === subType),
  );
  add(filter.protocol, protocolMatch);
  add(filter.reply, (reply) => (flow) => (flow.isReply ?? false) === reply);
  add(filter.tcpFlags, (flags) => (flow) => {
    const own = flow.l4?.protocol.case === 'TCP' ? flow.l4.protocol.value.flags : undefined;
    const names = [...(Object.keys(tcpFlagBits) as (keyof typeof tcpFlagBits)[]), 'NS' as const];
    return own !== undefined && names.every((name) => !flags[name] || own[name]);
  });
  add(filter.nodeName, (text) => {
    const match = nodeNameMatch(text);
    return (flow) => match(flow.nodeName);
  });
  add(filter.nodeLabels, (text) => {
    const match = selector('node_labels', text);
    return (flow) => match(flow.nodeLabels);
  });
  add(filter.ipVersion, (version: IPVersion) => (flow) => flow.IP?.ipVersion === version);
  add(filter.uuid, (uuid) => (flow) => flow.uuid === uuid.toLowerCase());
  add(filter.encrypted, (encrypted) => (flow) => (flow.IP?.encrypted ?? false) === encrypted);
  add(filter.dnsQuery, (text) => {
    const match = pattern('dns_query', text);
    return (flow) => flow.l7?.record.case === 'dns' && match(flow.l7.record.value.query);
  });
  add(filter.sourceIpXlated, (text) => {
    const match = addressMatch('source_ip_xlated', text);
    return (flow) => match(flow.IP?.sourceXlated ?? '');
  });
  add(
    filter.interface,
    ({ name, index }) =>
      (flow) =>
        (name === '' || flow.interface?.name === name) && (index === 0 || flow.interface?.index === index),
  );
  add(filter.traceId, (id) => (flow) => flow.traceContext?.parent?.traceId === id);
  add(filter.ipTraceId, (id) => (flow) => flow.ipTraceId?.traceId === id);
  add(filter.httpStatusCode, (text) => {
    const match = httpStatusMatch(text);
    return (flow) => match(httpOf(flow)?.code ?? 0);
  });
  add(filter.httpMethod, (method) => (flow) => httpOf(flow)?.method.toUpperCase() === method.toUpperCase());
  add(filter.httpPath, (text) => {
    const match = pattern('http_path', text);
    return (flow) => {
      const path = pathOf(httpOf(flow)?.url);
      return path !== undefined && match(path);
    };
  });
  add(filter.httpUrl, (text) => {
    const match = pattern('http_url', text);
    return (flow) => {
      const url = httpOf(flow)?.url;
      return url !== undefined && match(url);
    };
  });
  add(
    filter.httpHeader,
    ({ key, value }) =>
      (flow) =>
        (httpOf(flow)?.headers ?? []).some(
          (each) => each.key.toLowerCase() === key.toLowerCase() && each.value === value,
        ),
  );
  add(filter.experimental?.celExpression ?? [], (text) => {
    const compiled = compileCel(text);
    if (!compiled.ok) throw new FilterError(`experimental.cel_expression: ${compiled.reason}`);
    return compiled.value;
  });
  return (flow) => matches.every((match) => match(flow));
}

function selector(name: string, text: string): (labels: readonly string[]) => boolean {
  const parsed = parseLabelSelector(text);
  if (!parsed.ok) throw new FilterError(`${name}: ${parsed.reason}`);
  return parsed.value;
}

function portOf(flow: Flow, side: 'source' | 'destination'): number | undefined {
  const { value } = flow.l4?.protocol ?? {};
  if (value === undefined || !('sourcePort' in value)) return undefined;
  return value[`${side}Port`];
}

function protocolMatch(text: string): MessageMatch {
  const name = text.toLowerCase();
  if (name === 'icmp') return (flow) => /^ICMPv[46]$/.test(flow.l4?.protocol.case ?? '');
  if (name === 'dns' || name === 'http' || name === 'kafka') return (flow) => flow.l7?.record.case === name;
  return (flow) => flow.l4?.protocol.case?.toLowerCase() === name;
}

function httpOf(flow: Flow) {
  return flow.l7?.record.case === 'http' ? flow.l7.record.value : undefined;
}

function pathOf(url: string | undefined): string | undefined {
  return url === undefined ? undefined : (URL.parse(url, 'http://none')?.pathname ?? url);
}
