// From flags to the request that a node's flow server understands.
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import {
  type DropReason,
  type FlowFilter,
  FlowFilterSchema,
  IPVersion,
  TrafficDirection,
  Verdict,
} from '../../../../proto/gen/flow/flow_pb.js';
import { type GetFlowsRequest, GetFlowsRequestSchema } from '../../../../proto/gen/observer/observer_pb.js';
import { WeirError } from '../../../core/errors.ts';
import { reservedIdentities } from '../../../core/identity.ts';
import { canonicalIp, cidrContains, parseCidr } from '../../../core/ip.ts';
import { dropReasons } from '../../../kernel/datapath.gen.ts';
import { packRequestExtensions } from '../../../observe/flows/request-extensions.ts';
import { tcpFlagBits } from '../../../observe/flows/tcp-flags.ts';
import type { FilterFlag } from '../observe-command.ts';

/** The flags of `weir observe`. */
export interface ObserveOptions {
  readonly last?: number;
  readonly first?: number;
  readonly all?: boolean;
  readonly follow?: boolean;
  readonly since?: string;
  readonly until?: string;
  readonly fieldMask?: readonly string[];
  readonly filters: readonly FilterFlag[];
  readonly trailingNot?: boolean;
}

type FilterInit = MessageInitShape<typeof FlowFilterSchema>;
/** A filter's ways to match: one of them must. Either end of a flow gives two. */
type Ways = FilterInit[];

const defaultLast = 20;

function bad(flag: string, value: string, expected: string): WeirError {
  return new WeirError('CONFIG_INVALID', `--${flag} is ${JSON.stringify(value)}`, `Give ${expected}.`);
}

/** The request for these flags, and the policies that the client itself has to look for. */
export function flowRequest(
  options: ObserveOptions,
  nowMs: number,
): { request: GetFlowsRequest; policies: readonly FilterFlag[] } {
  if (options.trailingNot)
    throw new WeirError(
      'CONFIG_INVALID',
      '--not has no filter after it',
      'Put it before the filter that it turns round.',
    );
  const chosen = [options.last !== undefined, options.first !== undefined, options.all === true].filter(Boolean).length;
  if (chosen > 1)
    throw new WeirError('CONFIG_INVALID', '--last, --first and --all exclude each other', 'Give one of them.');
  const policies = options.filters.filter((each) => each.flag === 'policy');
  for (const { value } of policies) if (!/^[^/]+\/[^/]+$/.test(value)) throw bad('policy', value, 'namespace/name');
  // Those that the contract has a field for.
  const filters = options.filters.filter((each) => each.flag !== 'policy' && each.flag !== 'process');
  const processes = (not: boolean) =>
    options.filters.filter((each) => each.flag === 'process' && each.not === not).map(processPattern);
  const since = options.since === undefined ? undefined : parseTime('since', options.since, nowMs);
  const until = options.until === undefined ? undefined : parseTime('until', options.until, nowMs);
  const ranged = since !== undefined || options.all || options.follow;
  // What the client filters itself must not be counted by the server.
  const number = policies.length > 0 ? 0 : (options.first ?? options.last ?? (ranged ? 0 : defaultLast));
  const everything = options.all || (policies.length > 0 && !options.follow) || (options.last ?? 0) > 0;
  const request = create(GetFlowsRequestSchema, {
    number: BigInt(number),
    first: options.first !== undefined,
    follow: options.follow ?? false,
    since:
      since !== undefined
        ? timestampFromMs(since)
        : everything && options.follow && number === 0
          ? timestampFromMs(0)
          : undefined,
    until: until === undefined ? undefined : timestampFromMs(until),
    whitelist: combine(filters.filter((each) => !each.not)),
    blacklist: filters
      .filter((each) => each.not)
      .flatMap((each) => waysOf(each).map((way) => create(FlowFilterSchema, way))),
    extensions: packRequestExtensions({ process: processes(false), not_process: processes(true) }),
    fieldMask:
      options.fieldMask !== undefined && options.fieldMask.length > 0
        ? { paths: options.fieldMask.flatMap((each) => each.split(',')) }
        : undefined,
  });
  return { request, policies };
}

function processPattern({ value }: FilterFlag): string {
  if (value.trim() === '' || value.length > 512)
    throw bad('process', value, 'a name such as curl, a path such as /usr/bin/curl, or an exec id');
  return value;
}

/** Filters of one kind are alternatives, of different kinds all must hold: every combination becomes a filter. */
function combine(flags: readonly FilterFlag[]): FlowFilter[] {
  const kinds = Map.groupBy(flags, (each) => (each.flag === 'traffic-direction' ? 'direction' : each.flag));
  let combined: FilterInit[] = [{}];
  for (const same of kinds.values()) {
    const ways = same.flatMap(waysOf);
    combined = combined.flatMap((filter) => ways.flatMap((way) => join(filter, way)));
    if (combined.length > 1000)
      throw new WeirError(
        'CONFIG_INVALID',
        'the filters make more than 1000 combinations',
        'Give fewer filters that match either end.',
      );
  }
  // Without a filter everything would match.
  if (combined.length === 0)
    throw new WeirError(
      'CONFIG_INVALID',
      'the filters exclude each other: no flow can match',
      'Take one of them away.',
    );
  return kinds.size === 0 ? [] : combined.map((filter) => create(FlowFilterSchema, filter));
}

/** Both must hold. A field of a message holds alternatives, so two conditions on one field become the narrower one. */
function join(a: FilterInit, b: FilterInit): FilterInit[] {
  const joined: Record<string, unknown> = { ...a };
  for (const [field, values] of Object.entries(b)) {
    const before = joined[field] as unknown[] | undefined;
    const both = before?.flatMap((one) => (values as unknown[]).flatMap((two) => narrower(field, one, two)));
    if (both?.length === 0) return [];
    joined[field] = both ?? values;
  }
  return [joined as FilterInit];
}

/** What two values of a field have in common, as one value; none when they exclude each other. */
function narrower(field: string, one: unknown, two: unknown): unknown[] {
  if (field.endsWith('Label')) return [`${one},${two}`];
  if (field.endsWith('Pod') || field.endsWith('Service')) return narrowerPod(one as string, two as string);
  if (field.endsWith('Ip')) return narrowerIp(one as string, two as string);
  if (field.endsWith('Port')) return narrowerPort(one as string, two as string);
  return JSON.stringify(one) === JSON.stringify(two) ? [one] : [];
}

function narrowerPod(a: string, b: string): string[] {
  const split = (text: string) => [text.slice(0, text.indexOf('/')), text.slice(text.indexOf('/') + 1)] as const;
  const [[nsA, nameA], [nsB, nameB]] = [split(a), split(b)];
  if (nsA !== '' && nsB !== '' && nsA !== nsB) return [];
  const [short, long] = nameA.length < nameB.length ? [nameA, nameB] : [nameB, nameA];
  return long.startsWith(short) ? [`${nsA || nsB}/${long}`] : [];
}

function narrowerIp(a: string, b: string): string[] {
  const block = (text: string) => {
    const parsed = parseCidr(text.includes('/') ? text : `${text}/${text.includes(':') ? 128 : 32}`);
    return parsed.ok ? parsed.value : undefined;
  };
  const [blockA, blockB] = [block(a), block(b)];
  if (blockA === undefined || blockB === undefined) return [];
  return cidrContains(blockA, blockB) ? [b] : cidrContains(blockB, blockA) ? [a] : [];
}

function narrowerPort(a: string, b: string): string[] {
  const range = (text: string) => text.split('-').map(Number) as [number, number?];
  const [[firstA, lastA = firstA], [firstB, lastB = firstB]] = [range(a), range(b)];
  const [first, last] = [Math.max(firstA, firstB), Math.min(lastA, lastB)];
  return first > last ? [] : [first === last ? String(first) : `${first}-${last}`];
}

function waysOf({ flag, value }: FilterFlag): Ways {
  const side = /^(from|to)-(.*)$/.exec(flag);
  const kind = side?.[2] ?? flag;
  const sides =
    side === null
      ? (['source', 'destination'] as const)
      : side[1] === 'from'
        ? (['source'] as const)
        : (['destination'] as const);
  const ends = (field: string, one: unknown): Ways => sides.map((end) => ({ [`${end}${field}`]: [one] }) as FilterInit);
  switch (kind) {
    case 'namespace':
      if (!/^[^/]+$/.test(value)) throw bad(flag, value, 'the name of a namespace');
      return ends('Pod', `${value}/`);
    case 'pod':
      if (!/^[^/]*\/?[^/]*$/.test(value) || value === '' || value === '/')
        throw bad(flag, value, 'namespace/name, or a name in namespace default');
      return ends('Pod', value.includes('/') ? value : `default/${value}`);
    case 'service':
      if (!/^[^/]*\/?[^/]*$/.test(value) || value === '' || value === '/')
        throw bad(flag, value, 'namespace/name, or a name in namespace default');
      return ends('Service', value.includes('/') ? value : `default/${value}`);
    case 'label':
      if (value.trim() === '') throw bad(flag, value, 'a label selector, such as app=web');
      return ends('Label', value);
    case 'workload': {
      const [name, workloadKind = ''] = value.split('/').reverse();
      if (!name) throw bad(flag, value, 'a name, or kind/name such as Deployment/web');
      return ends('Workload', { name, kind: workloadKind });
    }
    case 'ip': {
      const ip = canonicalIp(value);
      if (ip === undefined) throw bad(flag, value, 'an address such as 10.0.0.1 or a block such as 10.0.0.0/8');
      return ends('Ip', ip);
    }
    case 'identity': {
      const identity = /^\d+$/.test(value)
        ? [Number(value)]
        : value === 'world'
          ? [2, 9, 10]
          : [reservedIdentities[value as keyof typeof reservedIdentities]];
      if (identity.some((each) => each === undefined || each > 0xffffffff))
        throw bad(flag, value, `a number, or one of ${Object.keys(reservedIdentities).slice(1).join(', ')}`);
      return sides.map((end) => ({ [`${end}Identity`]: identity }) as FilterInit);
    }
    case 'port':
      if (!/^\d{1,5}(-\d{1,5})?$/.test(value) || value.split('-').some((each) => Number(each) > 65_535))
        throw bad(flag, value, 'a port from 0 to 65535, or a range such as 8000-8999');
      return ends('Port', value);
    case 'protocol':
      if (!/^(tcp|udp|sctp|icmp|icmpv4|icmpv6|vrrp|igmp|dns|http|kafka)$/i.test(value))
        throw bad(flag, value, 'tcp, udp, sctp, icmp, icmpv4, icmpv6, vrrp, igmp, dns, http or kafka');
      return [{ protocol: [value.toLowerCase()] }];
    case 'verdict': {
      const verdict = { FORWARDED: Verdict.FORWARDED, DROPPED: Verdict.DROPPED, AUDIT: Verdict.AUDIT }[
        value.toUpperCase()
      ];
      if (verdict === undefined) throw bad(flag, value, 'forwarded, dropped or audit');
      return [{ verdict: [verdict] }];
    }
    case 'drop-reason': {
      const wanted = value
        .toUpperCase()
        .replaceAll('-', '_')
        .replace(/^DROP_/, '');
      const reason = dropReasons.find((each) => each.name === wanted || String(each.number) === value);
      if (reason === undefined) throw bad(flag, value, `one of ${dropReasons.map((each) => each.name).join(', ')}`);
      return [{ dropReasonDesc: [reason.number as DropReason] }];
    }
    case 'direction':
    case 'traffic-direction': {
      const direction = { ingress: TrafficDirection.INGRESS, egress: TrafficDirection.EGRESS }[value.toLowerCase()];
      if (direction === undefined) throw bad(flag, value, 'ingress or egress');
      return [{ trafficDirection: [direction] }];
    }
    case 'tcp-flags': {
      const names = value.toUpperCase().split(',');
      if (names.some((name) => !(name in tcpFlagBits)))
        throw bad(flag, value, `flags among ${Object.keys(tcpFlagBits).join(', ')}, with commas between them`);
      return [{ tcpFlags: [Object.fromEntries(names.map((name) => [name, true]))] }];
    }
    case 'ip-version':
      if (value !== '4' && value !== '6') throw bad(flag, value, '4 or 6');
      return [{ ipVersion: [value === '4' ? IPVersion.IPv4 : IPVersion.IPv6] }];
    case 'reply':
      return [{ reply: [true] }];
    case 'fqdn':
      if (value.trim() === '') throw bad(flag, value, 'a name, such as *.example.com');
      return ends('Fqdn', value);
    case 'cluster':
      return ends('ClusterName', value);
    case 'dns-query':
      return [{ dnsQuery: [value] }];
    case 'node-name':
      return [{ nodeName: [value] }];
    case 'node-label':
      return [{ nodeLabels: [value] }];
    case 'type':
      return [{ eventType: [eventType(flag, value)] }];
    case 'interface':
      return [{ interface: [{ name: value }] }];
    case 'snat-ip': {
      const ip = canonicalIp(value);
      if (ip === undefined) throw bad(flag, value, 'an address such as 10.0.0.1 or a block such as 10.0.0.0/8');
      return [{ sourceIpXlated: [ip] }];
    }
    case 'encrypted':
      return [{ encrypted: [true] }];
    case 'trace-id':
      return [{ traceId: [value] }];
    case 'ip-trace-id':
      if (!/^\d{1,19}$/.test(value)) throw bad(flag, value, 'a number');
      return [{ ipTraceId: [BigInt(value)] }];
    case 'http-status':
      return [{ httpStatusCode: [value] }];
    case 'http-method':
      return [{ httpMethod: [value.toUpperCase()] }];
    case 'http-path':
      return [{ httpPath: [value] }];
    case 'http-url':
      return [{ httpUrl: [value] }];
    case 'http-header': {
      const colon = value.indexOf(':');
      if (colon < 1) throw bad(flag, value, 'KEY:VALUE');
      return [{ httpHeader: [{ key: value.slice(0, colon), value: value.slice(colon + 1).trim() }] }];
    }
    case 'cel-expression':
      return [{ experimental: { celExpression: [value] } }];
    case 'uuid':
      return [{ uuid: [value] }];
    default:
      throw new Error(`no filter is behind --${flag}`);
  }
}

/** Observation points of what was not dropped, by the numbers of the datapath. */
const traceSubTypes: Readonly<Record<string, number>> = {
  'to-endpoint': 0,
  'to-host': 2,
  'to-network': 11,
  'from-endpoint': 5,
};

function eventType(flag: string, value: string): { type: number; matchSubType?: boolean; subType?: number } {
  const [type = '', sub] = value.toLowerCase().split(':');
  if (type === 'drop' && sub === undefined) return { type: 1 };
  if (type === 'l7' && sub === undefined) return { type: 129 };
  const subType = sub === undefined ? undefined : traceSubTypes[sub];
  if (type !== 'trace' || (sub !== undefined && subType === undefined))
    throw bad(flag, value, `drop, l7, trace, or trace: with ${Object.keys(traceSubTypes).join(', ')}`);
  return subType === undefined ? { type: 4 } : { type: 4, matchSubType: true, subType };
}

const units: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** Milliseconds since the epoch of `5m` (ago) or of a time in RFC 3339. */
export function parseTime(flag: string, text: string, nowMs: number): number {
  if (text === 'now') return nowMs;
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g)];
  if (parts.length > 0 && parts.map((part) => part[0]).join('') === text) {
    return nowMs - parts.reduce((sum, [, amount, unit]) => sum + Number(amount) * units[unit!]!, 0);
  }
  const time = /^\d{4}-\d\d-\d\d/.test(text) ? Date.parse(text.replace(' ', 'T')) : Number.NaN;
  if (Number.isNaN(time))
    throw bad(flag, text, 'how long ago, such as 30s, 5m or 1h30m, or a time such as 2026-11-22T17:30:00Z');
  return time;
}
