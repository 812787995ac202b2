// Policy routing rules through netlink.
import { AF_INET, AF_INET6, addressText, familyOf, toPrefixed } from './ip-text.ts';
import { isErrno } from './kernel-error.ts';
import {
  attributeText,
  attributeU32,
  fixedHeader,
  type Netlink,
  NetlinkFlag,
  type NetlinkMessage,
  NetlinkPayload,
  parseAttributes,
} from './netlink.ts';
import { RouteProtocol } from './routes.ts';

export type Rule = {
  family: 4 | 6;
  priority: number;
  table: number;
  mark?: number;
  markMask?: number;
  src?: string;
  dst?: string;
  inputDevice?: string;
  outputDevice?: string;
  protocol?: number;
};

const RTM_NEWRULE = 32;
const RTM_DELRULE = 33;
const RTM_GETRULE = 34;
const FR_ACT_TO_TBL = 1;
const Attribute = {
  dst: 1,
  src: 2,
  iif: 3,
  priority: 6,
  mark: 10,
  table: 15,
  markMask: 16,
  oif: 17,
  protocol: 21,
} as const;

/** Adds a rule; EEXIST when there is an equal one. */
export function addRule(netlink: Netlink, rule: Rule): void {
  netlink.request(RTM_NEWRULE, NetlinkFlag.create | NetlinkFlag.excl, rulePayload(rule), `add rule ${rule.priority}`);
}

/** Deletes a rule; false when there was none. */
export function deleteRule(netlink: Netlink, rule: Rule): boolean {
  try {
    netlink.request(RTM_DELRULE, 0, rulePayload(rule), `delete rule ${rule.priority}`);
    return true;
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return false;
    throw error;
  }
}

/** The rules of both families. */
export function listRules(netlink: Netlink): Rule[] {
  return [AF_INET, AF_INET6].flatMap((family) =>
    netlink.dump(RTM_GETRULE, ruleHeader(family, 0, 0, 0, 0), 'list rules').map(parseRule),
  );
}

function rulePayload(rule: Rule): Uint8Array {
  const src = rule.src === undefined ? undefined : toPrefixed(rule.src);
  const dst = rule.dst === undefined ? undefined : toPrefixed(rule.dst);
  const family = src ? familyOf(src) : dst ? familyOf(dst) : rule.family === 4 ? AF_INET : AF_INET6;
  const table = rule.table < 256 ? rule.table : 0;
  const payload = new NetlinkPayload()
    .raw(ruleHeader(family, dst?.prefixBits ?? 0, src?.prefixBits ?? 0, table, FR_ACT_TO_TBL))
    .u32(Attribute.priority, rule.priority)
    .u32(Attribute.table, rule.table)
    .attribute(Attribute.protocol, new Uint8Array([rule.protocol ?? RouteProtocol.weir]));
  if (rule.mark !== undefined) payload.u32(Attribute.mark, rule.mark).u32(Attribute.markMask, rule.markMask ?? ~0);
  if (src) payload.attribute(Attribute.src, src.bytes);
  if (dst) payload.attribute(Attribute.dst, dst.bytes);
  if (rule.inputDevice !== undefined) payload.text(Attribute.iif, rule.inputDevice);
  if (rule.outputDevice !== undefined) payload.text(Attribute.oif, rule.outputDevice);
  return payload.bytes();
}

function ruleHeader(family: number, dstBits: number, srcBits: number, table: number, action: number): Uint8Array {
  return fixedHeader([
    [1, family],
    [1, dstBits],
    [1, srcBits],
    [1, 0],
    [1, table],
    [1, 0],
    [1, 0],
    [1, action],
    [4, 0],
  ]);
}

function parseRule({ payload }: NetlinkMessage): Rule {
  const attributes = parseAttributes(payload, 12);
  const [src, dst] = [attributes.get(Attribute.src), attributes.get(Attribute.dst)];
  const [iif, oif] = [attributes.get(Attribute.iif), attributes.get(Attribute.oif)];
  const mark = attributeU32(attributes.get(Attribute.mark));
  const markMask = attributeU32(attributes.get(Attribute.markMask));
  const protocol = attributes.get(Attribute.protocol)?.[0];
  return {
    family: payload[0] === AF_INET ? 4 : 6,
    priority: attributeU32(attributes.get(Attribute.priority)) ?? 0,
    table: attributeU32(attributes.get(Attribute.table)) ?? payload[4]!,
    ...(mark !== undefined && { mark }),
    ...(markMask !== undefined && { markMask }),
    ...(src && { src: `${addressText(src)}/${payload[2]}` }),
    ...(dst && { dst: `${addressText(dst)}/${payload[1]}` }),
    ...(iif && { inputDevice: attributeText(iif) }),
    ...(oif && { outputDevice: attributeText(oif) }),
    ...(protocol !== undefined && { protocol }),
  };
}
