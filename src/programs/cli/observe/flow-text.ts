// Flows as text: one line, a table, or a block of key and value; and as JSON.
import { createRegistry, type JsonObject, toJson } from '@bufbuild/protobuf';
import { StructSchema, type Timestamp } from '@bufbuild/protobuf/wkt';
import {
  type Endpoint,
  type Flow,
  LostEventSource,
  type Policy,
  TraceObservationPoint,
  TrafficDirection,
  Verdict,
} from '../../../../proto/gen/flow/flow_pb.js';
import { type GetFlowsResponse, GetFlowsResponseSchema } from '../../../../proto/gen/observer/observer_pb.js';
import { reservedName } from '../../../core/identity.ts';
import { dropReasons } from '../../../kernel/datapath.gen.ts';
import { ruleLabel } from '../../../observe/flows/flow-policies.ts';
import { printable } from '../printable.ts';
import { baseName, type FlowProcess, processesOf } from './flow-more.ts';
import { jsonWriter } from './json-text.ts';

/** Formats that `-o` knows. */
export type FlowFormat = 'compact' | 'table' | 'json' | 'jsonpb' | 'dict';

/** Turns responses into text that ends in a newline. */
export type FlowPrinter = (response: GetFlowsResponse) => string;

interface TextOptions {
  readonly colors: boolean;
  readonly nodeNames: boolean;
  /** Formats of one line name processes, too. */
  readonly processes?: boolean;
}

const registry = createRegistry(StructSchema);
const paint = (code: number) => (text: string) => `\x1b[${code}m${text}\x1b[0m`;
const plain = (text: string) => text;

/** Makes the printer of a format. */
export function flowPrinter(format: FlowFormat, options: TextOptions): FlowPrinter {
  if (format === 'json' || format === 'jsonpb') {
    return (response) => {
      const json = toJson(GetFlowsResponseSchema, response, { useProtoFieldName: true, registry });
      return `${JSON.stringify(format === 'json' ? withPlainFields(json as JsonObject) : json)}\n`;
    };
  }
  const text =
    format === 'compact' ? compactPrinter(options) : format === 'table' ? tablePrinter(options) : dictPrinter(options);
  return (response) => {
    const { responseTypes } = response;
    switch (responseTypes.case) {
      case 'flow':
        return text(responseTypes.value, response);
      case 'lostEvents': {
        const { source, numEventsLost } = responseTypes.value;
        // How many is not told to everybody.
        if (numEventsLost === 0n) return `${timeText(response.time)}: FLOWS MAY BE MISSING\n`;
        return `${timeText(response.time)}${node(response, true)}: EVENTS LOST: ${numEventsLost} ${lossText[source] ?? LostEventSource[source] ?? ''}\n`;
      }
      case 'nodeStatus':
        return `${responseTypes.value.nodeNames.join(', ')}: ${responseTypes.value.message}\n`;
      default:
        return '';
    }
  };
}

/** The printer of flows in JSON from their bytes; undefined for other formats. */
export function flowJsonPrinter(format: FlowFormat): ((response: Uint8Array) => string) | undefined {
  if (format !== 'json' && format !== 'jsonpb') return undefined;
  const write = jsonWriter(GetFlowsResponseSchema);
  return (response) => {
    const text = write(response);
    if (format === 'jsonpb' || !text.includes('"extensions":')) return `${text}\n`;
    return `${JSON.stringify(withPlainFields(JSON.parse(text)))}\n`;
  };
}

/** What `extensions` say, as fields beside the contract's own: what has such a name already stays what it is. */
function withPlainFields(json: JsonObject): JsonObject {
  const flow = json.flow as JsonObject | undefined;
  const more = (flow?.extensions as JsonObject | undefined)?.value as JsonObject | undefined;
  if (flow === undefined || more === undefined) return json;
  const fields = Object.entries(more).filter(([name]) => !Object.hasOwn(flow, name));
  return { ...json, flow: { ...flow, ...Object.fromEntries(fields) } };
}

const lossText: Readonly<Record<number, string>> = {
  [LostEventSource.PERF_EVENT_RING_BUFFER]: 'because the kernel’s ring was full',
  [LostEventSource.OBSERVER_EVENTS_QUEUE]: 'drops over the rate of reports (counted in `weir drops`)',
  [LostEventSource.HUBBLE_RING_BUFFER]: 'because this reader was too slow',
};

function compactPrinter({
  colors,
  nodeNames,
  processes,
}: TextOptions): (flow: Flow, response: GetFlowsResponse) => string {
  const [red, green, yellow] = colors ? [paint(31), paint(32), paint(33)] : [plain, plain, plain];
  return (flow, response) => {
    const dropped = flow.verdict === Verdict.DROPPED;
    const verdict = (dropped ? red : green)(Verdict[flow.verdict] ?? String(flow.verdict));
    const reason = printable(explain(flow));
    const staged = stagedText(flow);
    const told = processes ? processesOf(flow) : {};
    const before = printable(
      `${timeText(flow.time)}${node(response, nodeNames)}: ${throughText(flow, 'source')}${processText(told.source)} -> ` +
        `${throughText(flow, 'destination')}${processText(told.destination)} ${typeText(flow)} `,
    );
    return (
      `${before}${verdict} (${printable(flow.Summary)})` +
      `${reason === '' ? '' : ` ${dropped ? red(reason) : reason}`}${staged === '' ? '' : ` ${yellow(staged)}`}\n`
    );
  };
}

function tablePrinter({
  colors,
  nodeNames,
  processes,
}: TextOptions): (flow: Flow, response: GetFlowsResponse) => string {
  const [red, green] = colors ? [paint(31), paint(32)] : [plain, plain];
  // Flows come one after the other, so columns can only grow.
  const widths = [23, ...(nodeNames ? [8] : []), 30, 30, 13, 9, 20];
  const titles = [
    'TIMESTAMP',
    ...(nodeNames ? ['NODE'] : []),
    'SOURCE',
    'DESTINATION',
    'TYPE',
    'VERDICT',
    'SUMMARY',
    'WHY',
  ];
  let begun = false;
  return (flow, response) => {
    const told = processes ? processesOf(flow) : {};
    const cells = [
      timeText(flow.time),
      ...(nodeNames ? [response.nodeName] : []),
      `${throughText(flow, 'source')}${processText(told.source)}`,
      `${throughText(flow, 'destination')}${processText(told.destination)}`,
      typeText(flow),
      Verdict[flow.verdict] ?? String(flow.verdict),
      flow.Summary,
      [explain(flow), stagedText(flow)].filter((each) => each !== '').join('; '),
    ].map(printable);
    const line = (values: readonly string[], color: (text: string) => string = plain) => {
      for (const [i, value] of values.entries()) if (i < widths.length) widths[i] = Math.max(widths[i]!, value.length);
      return values
        .map((value, i) => (i === values.length - 3 ? color(value.padEnd(widths[i]!)) : value.padEnd(widths[i] ?? 0)))
        .join('  ')
        .trimEnd()
        .concat('\n');
    };
    const text = line(cells, flow.verdict === Verdict.DROPPED ? red : green);
    if (begun) return text;
    begun = true;
    return line(titles) + text;
  };
}

function dictPrinter({ nodeNames }: TextOptions): (flow: Flow, response: GetFlowsResponse) => string {
  let begun = false;
  return (flow, response) => {
    const why = explain(flow);
    const staged = stagedText(flow);
    const service = serviceText(flow.destinationService ?? flow.sourceService);
    const told = processesOf(flow);
    const who = (process: FlowProcess | undefined) =>
      process === undefined ? [] : [['PROCESS', `${processText(process).trim()} ${process.arguments}`.trim()] as const];
    const rows: (readonly [string, string])[] = [
      ['TIMESTAMP', timeText(flow.time)],
      ...(nodeNames ? [['NODE', response.nodeName] as [string, string]] : []),
      ['SOURCE', endText(flow, 'source')],
      ...who(told.source),
      ['DESTINATION', endText(flow, 'destination')],
      ...who(told.destination),
      ...(service === '' ? [] : [['SERVICE', service] as [string, string]]),
      ['DIRECTION', (TrafficDirection[flow.trafficDirection] ?? '').toLowerCase()],
      ['TYPE', typeText(flow)],
      ['VERDICT', Verdict[flow.verdict] ?? String(flow.verdict)],
      ['SUMMARY', flow.Summary],
      ...(why === '' ? [] : [['WHY', why] as [string, string]]),
      ...(staged === '' ? [] : [['STAGED', staged] as [string, string]]),
    ];
    const text = rows.map(([key, value]) => `${printable(`${key.padStart(12)}: ${value}`)}\n`).join('');
    const line = begun ? '------------\n' : '';
    begun = true;
    return line + text;
  };
}

const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

/** `Nov 22 17:30:01.123`, in the local time zone. */
export function timeText(time: Timestamp | undefined): string {
  if (time === undefined) return '-';
  const date = new Date(Number(time.seconds) * 1000 + Math.floor(time.nanos / 1e6));
  const two = (value: number) => String(value).padStart(2, '0');
  return `${months[date.getMonth()]} ${String(date.getDate()).padStart(2)} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${String(date.getMilliseconds()).padStart(3, '0')}`;
}

function node(response: GetFlowsResponse, shown: boolean): string {
  return shown && response.nodeName !== '' ? ` [${response.nodeName}]` : '';
}

/** `shop/cart-abc:43210 (id:1234)`, `198.51.100.1:443 (world-ipv4)`. */
export function endText(flow: Flow, side: 'source' | 'destination'): string {
  const end: Endpoint | undefined = flow[side];
  const address = flow.IP?.[side] ?? '?';
  const l4 = flow.l4?.protocol;
  const ports = l4?.case === 'TCP' || l4?.case === 'UDP' || l4?.case === 'SCTP' ? l4.value : undefined;
  const port = ports === undefined ? undefined : side === 'source' ? ports.sourcePort : ports.destinationPort;
  const name = end?.podName
    ? `${end.namespace}/${end.podName}`
    : port !== undefined && address.includes(':')
      ? `[${address}]`
      : address;
  const identity = end?.identity ?? 0;
  return `${name}${port === undefined ? '' : `:${port}`} (${reservedName(identity) ?? `id:${identity}`})`;
}

/** An end, and the Service through which it was reached: `svc shop/web -> shop/web-1:8080 (id:1234)`. */
function throughText(flow: Flow, side: 'source' | 'destination'): string {
  const service = serviceText(flow[`${side}Service`]);
  const end = endText(flow, side);
  if (service === '') return end;
  return side === 'destination' ? `svc ${service} -> ${end}` : `${end} as svc ${service}`;
}

function serviceText(service: { namespace: string; name: string } | undefined): string {
  return service === undefined ? '' : `${service.namespace}/${service.name}`;
}

/** ` curl[4711]`: the base name is enough among flows. */
function processText(process: FlowProcess | undefined): string {
  return process === undefined ? '' : ` ${baseName(process.binary) || '?'}[${process.pid}]`;
}

/** Where it was seen, or why it was dropped. */
function typeText(flow: Flow): string {
  if (flow.verdict === Verdict.DROPPED)
    return dropReasons.find((each) => each.number === flow.dropReasonDesc)?.name ?? `reason-${flow.dropReasonDesc}`;
  return (TraceObservationPoint[flow.traceObservationPoint] ?? 'unknown').toLowerCase().replaceAll('_', '-');
}

/** Which policies and rules said so. */
export function explain(flow: Flow): string {
  if (flow.verdict === Verdict.DROPPED || flow.verdict === Verdict.AUDIT) {
    const denied = [
      ['egress', flow.egressDeniedBy],
      ['ingress', flow.ingressDeniedBy],
    ] as const;
    const parts = denied
      .filter(([, policies]) => policies.length > 0)
      .map(([direction, policies]) => denial(direction, policies));
    if (parts.length > 0)
      return `${flow.verdict === Verdict.AUDIT ? 'would be denied' : 'denied'}: ${parts.join(' and ')}`;
    if (flow.verdict === Verdict.AUDIT) return '';
    const reason = dropReasons.find((each) => each.number === flow.dropReasonDesc);
    if (reason?.name === 'POLICY_DENIED')
      return `denied: nothing is known yet about the ${(TrafficDirection[flow.trafficDirection] ?? '').toLowerCase()} of the pod`;
    return reason === undefined ? '' : `dropped: ${reason.meaning}`;
  }
  const policies = [...flow.egressAllowedBy, ...flow.ingressAllowedBy];
  return policies.length === 0 ? '' : `allowed by ${policies.map(policyText).join(' and ')}`;
}

function denial(direction: string, policies: readonly Policy[]): string {
  const rules = policies.some((policy) => policy.labels.some((label) => label.startsWith(ruleLabel)));
  if (rules) return `${direction} by ${policies.map(policyText).join(' and ')}`;
  return `${direction} isolated by ${policies.map(policyText).join(', ')}, no rule matched`;
}

/** `NetworkPolicy shop/db-from-cart ingress[0]`. */
function policyText(policy: Policy): string {
  const rules = policy.labels
    .filter((label) => label.startsWith(ruleLabel))
    .map((label) => ` ${label.slice(ruleLabel.length)}`);
  return `${policy.kind} ${policy.namespace === '' ? '' : `${policy.namespace}/`}${policy.name}${rules.join('')}`;
}

/** The Summary says it too; text formats make it stand out. */
function stagedText(flow: Flow): string {
  return flow.Summary.includes('staged policies would deny') ? 'STAGED: would be denied' : '';
}
