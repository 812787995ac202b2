// All protocols and ports in one line of numbers: protocol × 65536 + port (of ICMP its type, 0 where there are none). What
// holds for a set of them is a list of spans, and a verdict a list of places where it changes.
import { type NamedPort, type PolicyPort, protocolNumbers } from '../../../core/rows.ts';
import { serviceText } from '../explain.ts';

/** First and last point, both inside. */
export type Span = readonly [first: number, last: number];

const perProtocol = 0x10000;
const end = 256 * perProtocol;
/** Everything. */
export const wholeSpace: readonly Span[] = [[0, end - 1]];

/** The point of a protocol and port. */
export function pointOf(protocol: number, port: number): number {
  return protocol * perProtocol + port;
}

/** The protocol and port of a point. */
export function serviceOf(point: number): { protocol: number; port: number } {
  return { protocol: Math.floor(point / perProtocol), port: point % perProtocol };
}

/** What the ports of a rule mean for a destination with these named ports. */
export function spansOf(ports: readonly PolicyPort[] | undefined, named: readonly NamedPort[]): Span[] {
  if (ports === undefined) return [...wholeSpace];
  const spans: Span[] = [];
  for (const port of ports) {
    if (port.kind === 'all') spans.push([pointOf(port.protocol, 0), pointOf(port.protocol, perProtocol - 1)]);
    else if (port.kind === 'range') spans.push([pointOf(port.protocol, port.first), pointOf(port.protocol, port.last)]);
    else {
      for (const each of named) {
        if (each.name !== port.name || each.protocol !== port.protocol) continue;
        const point = pointOf(protocolNumbers[each.protocol], each.port);
        spans.push([point, point]);
      }
    }
  }
  return spans;
}

/** The points at which something may change, in rising order, 0 first. */
export function bordersOf(spans: readonly Span[]): number[] {
  const borders = new Set([0]);
  for (const [first, last] of spans) {
    borders.add(first);
    if (last + 1 < end) borders.add(last + 1);
  }
  return [...borders].sort((a, b) => a - b);
}

/** The last point before a border, or of all. */
export function lastBefore(border: number | undefined): number {
  return (border ?? end) - 1;
}

/** The last port or type that a packet of a protocol can have. */
function portsOf(protocol: number): Span {
  if (protocol === 6 || protocol === 17 || protocol === 132) return [1, 65_535];
  return protocol === 1 || protocol === 58 ? [0, 255] : [0, 0];
}

/** The parts of a span that packets can be in, one for each protocol. */
export function realParts([first, last]: Span): Span[] {
  const parts: Span[] = [];
  for (let protocol = Math.floor(first / perProtocol); protocol * perProtocol <= last; protocol++) {
    const [low, high] = portsOf(protocol);
    const from = Math.max(first, pointOf(protocol, low));
    const to = Math.min(last, pointOf(protocol, high));
    if (from <= to) parts.push([from, to]);
  }
  return parts;
}

const names: Readonly<Record<number, string>> = { 1: 'ICMP', 6: 'TCP', 17: 'UDP', 58: 'ICMPv6', 132: 'SCTP' };

/** Spans in words, such as `5432/TCP`, `8000-8999/TCP`, `any UDP`, `anything`. */
export function spanTexts(spans: readonly Span[]): string[] {
  const parts = joined(spans.flatMap(realParts));
  const whole = new Set<number>();
  const texts: string[] = [];
  for (const [first, last] of parts) {
    const { protocol, port } = serviceOf(first);
    const [low, high] = portsOf(protocol);
    if (port === low && serviceOf(last).port === high) whole.add(protocol);
    else if (first === last) texts.push(serviceText({ protocol, port }));
    else if (protocol === 1 || protocol === 58) texts.push(`${names[protocol]} types ${port}-${serviceOf(last).port}`);
    else texts.push(`${port}-${serviceText(serviceOf(last))}`);
  }
  if (whole.size === 256) return ['anything'];
  const others = [...whole].filter((protocol) => names[protocol] === undefined);
  const every = others.length === 256 - Object.keys(names).length;
  return [
    ...texts,
    ...[6, 17, 132, 1, 58].filter((protocol) => whole.has(protocol)).map((protocol) => `any ${names[protocol]}`),
    ...(every ? ['any other protocol'] : others.map((protocol) => `protocol ${protocol}`)),
  ];
}

/** Neighbours of one protocol as one. */
function joined(spans: readonly Span[]): Span[] {
  const result: [number, number][] = [];
  for (const [first, last] of [...spans].sort((a, b) => a[0] - b[0])) {
    const before = result.at(-1);
    const same = before !== undefined && serviceOf(before[0]).protocol === serviceOf(first).protocol;
    if (same && first <= before[1] + 1) before[1] = Math.max(before[1], last);
    else result.push([first, last]);
  }
  return result;
}
