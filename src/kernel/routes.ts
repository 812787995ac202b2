// Routes of both families through netlink.
import { AF_INET, AF_INET6, addressText, anyAddress, familyOf, toAddress, toPrefixed } from './ip-text.ts';
import { isErrno } from './kernel-error.ts';
import {
  attributeU32,
  fixedHeader,
  type Netlink,
  NetlinkFlag,
  type NetlinkMessage,
  NetlinkPayload,
  parseAttributes,
} from './netlink.ts';

/** Routing tables with names. */
const RouteTable = { main: 254, local: 255 } as const;
/** Who made a route: Weir marks its own, so that it can tell them apart. */
export const RouteProtocol = { kernel: 2, boot: 3, static: 4, weir: 87 } as const;

const scopeNumbers = { global: 0, site: 200, link: 253, host: 254, nowhere: 255 } as const;
const kindNumbers = { unicast: 1, local: 2, broadcast: 3, blackhole: 6, unreachable: 7, prohibit: 8 } as const;
export type RouteScope = keyof typeof scopeNumbers;
export type RouteKind = keyof typeof kindNumbers | 'other';

export type NextHop = { via: string | undefined; ifindex: number };

export type Route = {
  family: 4 | 6;
  /** Destination with prefix; `0.0.0.0/0` and `::/0` are the defaults. */
  dst: string;
  kind: RouteKind;
  /** The gateway and device of the first next hop. */
  via: string | undefined;
  ifindex: number;
  /** All next hops, when there are several. */
  nextHops: NextHop[];
  src: string | undefined;
  metric: number;
  table: number;
  protocol: number;
  scope: RouteScope;
};

export type RouteSpec = {
  /** Destination with prefix. */
  dst: string;
  kind?: Exclude<RouteKind, 'other'>;
  via?: string;
  ifindex?: number;
  /** The gateway counts as reachable on the device though no address says so. */
  onlink?: boolean;
  scope?: RouteScope;
  src?: string;
  metric?: number;
  table?: number;
  protocol?: number;
  mtu?: number;
};

const RTM_NEWROUTE = 24;
const RTM_DELROUTE = 25;
const RTM_GETROUTE = 26;
const RTNH_F_ONLINK = 4;
const RTM_F_CLONED = 0x200;
const RTAX_MTU = 2;
const headerBytes = 12;
const Attribute = {
  dst: 1,
  oif: 4,
  gateway: 5,
  priority: 6,
  prefsrc: 7,
  metrics: 8,
  multipath: 9,
  table: 15,
  via: 18,
} as const;

/** Adds a route; EEXIST when there is an equal one. */
export function addRoute(netlink: Netlink, spec: RouteSpec): void {
  const payload = routePayload(spec);
  netlink.request(RTM_NEWROUTE, NetlinkFlag.create | NetlinkFlag.excl, payload, `add ${describe(spec)}`);
}

/** Adds a route or puts it in the place of the one with the same destination, table and metric. */
export function replaceRoute(netlink: Netlink, spec: RouteSpec): void {
  const payload = routePayload(spec);
  netlink.request(RTM_NEWROUTE, NetlinkFlag.create | NetlinkFlag.replace, payload, `replace ${describe(spec)}`);
}

/** Deletes a route; false when there was none. What the spec leaves out matches anything. */
export function deleteRoute(netlink: Netlink, spec: RouteSpec): boolean {
  try {
    netlink.request(RTM_DELROUTE, 0, routePayload(spec, true), `delete ${describe(spec)}`);
    return true;
  } catch (error) {
    if (isErrno(error, 'ESRCH', 'ENODEV')) return false;
    throw error;
  }
}

/** Routes of both families; of one table when given, else of all. */
export function listRoutes(netlink: Netlink, filter: { table?: number; protocol?: number } = {}): Route[] {
  return [AF_INET, AF_INET6]
    .flatMap((family) => netlink.dump(RTM_GETROUTE, header({ family }), 'list routes').filter(isNotCached))
    .map(parseRoute)
    .filter((route) => filter.table === undefined || route.table === filter.table)
    .filter((route) => filter.protocol === undefined || route.protocol === filter.protocol);
}

/** The route that a packet to `address` would take; undefined when there is none. */
export function lookupRoute(netlink: Netlink, address: string): Route | undefined {
  const parsed = toAddress(address);
  const payload = new NetlinkPayload()
    .raw(header({ family: familyOf(parsed), dstBits: parsed.bytes.length * 8 }))
    .attribute(Attribute.dst, parsed.bytes);
  try {
    const [message] = netlink.request(RTM_GETROUTE, 0, payload.bytes(), `look up the route to ${address}`);
    return message && parseRoute(message);
  } catch (error) {
    if (isErrno(error, 'ENETUNREACH', 'EHOSTUNREACH', 'EACCES', 'EINVAL')) return undefined;
    throw error;
  }
}

function isNotCached({ payload }: NetlinkMessage): boolean {
  return (new DataView(payload.buffer, payload.byteOffset).getUint32(8, true) & RTM_F_CLONED) === 0;
}

function describe(spec: RouteSpec): string {
  return `route ${spec.dst}${spec.via ? ` via ${spec.via}` : ''}${spec.ifindex ? ` dev ${spec.ifindex}` : ''}`;
}

function routePayload(spec: RouteSpec, deleting = false): Uint8Array {
  const dst = toPrefixed(spec.dst);
  const kind = kindNumbers[spec.kind ?? 'unicast'];
  const direct = spec.via === undefined && kind === kindNumbers.unicast;
  const scope = spec.kind === 'local' ? 'host' : direct && dst.family === 4 ? 'link' : 'global';
  const table = spec.table ?? RouteTable.main;
  const payload = new NetlinkPayload().raw(
    header({
      family: familyOf(dst),
      dstBits: dst.prefixBits,
      table: table < 256 ? table : 0,
      protocol: spec.protocol ?? (deleting ? 0 : RouteProtocol.weir),
      // A deletion matches any scope unless one is named.
      scope:
        spec.scope !== undefined ? scopeNumbers[spec.scope] : deleting ? scopeNumbers.nowhere : scopeNumbers[scope],
      kind: deleting && spec.kind === undefined ? 0 : kind,
      flags: spec.onlink ? RTNH_F_ONLINK : 0,
    }),
  );
  if (dst.prefixBits > 0) payload.attribute(Attribute.dst, dst.bytes);
  payload.u32(Attribute.table, table);
  if (spec.ifindex !== undefined) payload.u32(Attribute.oif, spec.ifindex);
  if (spec.metric !== undefined) payload.u32(Attribute.priority, spec.metric);
  if (spec.src !== undefined) payload.attribute(Attribute.prefsrc, toAddress(spec.src).bytes);
  if (spec.mtu !== undefined) {
    const mtu = spec.mtu;
    payload.nest(Attribute.metrics, (metrics) => metrics.u32(RTAX_MTU, mtu));
  }
  if (spec.via !== undefined) {
    const via = toAddress(spec.via);
    if (via.family === dst.family) payload.attribute(Attribute.gateway, via.bytes);
    else payload.attribute(Attribute.via, new Uint8Array([familyOf(via), 0, ...via.bytes]));
  }
  return payload.bytes();
}

function header(fields: {
  family: number;
  dstBits?: number;
  table?: number;
  protocol?: number;
  scope?: number;
  kind?: number;
  flags?: number;
}): Uint8Array {
  return fixedHeader([
    [1, fields.family],
    [1, fields.dstBits ?? 0],
    [1, 0],
    [1, 0],
    [1, fields.table ?? 0],
    [1, fields.protocol ?? 0],
    [1, fields.scope ?? 0],
    [1, fields.kind ?? 0],
    [4, fields.flags ?? 0],
  ]);
}

/** Reads a route out of a netlink message. */
export function parseRoute({ payload }: NetlinkMessage): Route {
  const attributes = parseAttributes(payload, headerBytes);
  const family = payload[0]!;
  const dst = attributes.get(Attribute.dst);
  const src = attributes.get(Attribute.prefsrc);
  const multipath = attributes.get(Attribute.multipath);
  const nextHops = multipath
    ? parseNextHops(multipath)
    : [{ via: gateway(attributes), ifindex: attributeU32(attributes.get(Attribute.oif)) ?? 0 }];
  return {
    family: family === AF_INET ? 4 : 6,
    dst: `${dst ? addressText(dst) : anyAddress(family)}/${payload[1]}`,
    kind: nameOf(kindNumbers, payload[7]!) ?? 'other',
    via: nextHops[0]?.via,
    ifindex: nextHops[0]?.ifindex ?? 0,
    nextHops,
    src: src && addressText(src),
    metric: attributeU32(attributes.get(Attribute.priority)) ?? 0,
    table: attributeU32(attributes.get(Attribute.table)) ?? payload[4]!,
    protocol: payload[5]!,
    scope: nameOf(scopeNumbers, payload[6]!) ?? 'global',
  };
}

function gateway(attributes: Map<number, Uint8Array>): string | undefined {
  const same = attributes.get(Attribute.gateway);
  if (same) return addressText(same);
  const other = attributes.get(Attribute.via);
  return other && addressText(other.subarray(2));
}

function parseNextHops(bytes: Uint8Array): NextHop[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const hops: NextHop[] = [];
  for (let at = 0; at + 8 <= bytes.length; ) {
    const length = view.getUint16(at, true);
    if (length < 8) break;
    hops.push({
      via: gateway(parseAttributes(bytes.subarray(at, at + length), 8)),
      ifindex: view.getInt32(at + 4, true),
    });
    at += (length + 3) & ~3;
  }
  return hops;
}

function nameOf<Name extends string>(numbers: Record<Name, number>, number: number): Name | undefined {
  return (Object.keys(numbers) as Name[]).find((name) => numbers[name] === number);
}
