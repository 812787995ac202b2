// From an event to what an exporter's queue keeps: its id, its time, its key, and the bytes that will be sent.
import type { FlowContext } from '../flows/flow-message.ts';
import type { FlowEnd, FlowRow } from '../flows/flow-row.ts';
import { verdictOf } from '../flows/flow-summary.ts';
import { cimJson } from './cim-json.ts';
import { ecsJson } from './ecs-json.ts';
import { type ExporterConfig, formatOf } from './export-config.ts';
import { contractJson, type ExportEvent, eventId, eventTimeMs, isWarning } from './export-event.ts';
import type { JsonObject } from './flow-json.ts';
import { transportName, verdictText } from './flow-words.ts';
import { otlpRecord } from './otlp-record.ts';
import type { QueuedEvent } from './queue-record.ts';
import { syslogMessage } from './syslog-message.ts';

/** Makes what is queued of an event. */
export type EventEncoder = (event: ExportEvent) => Omit<QueuedEvent, 'seq'>;

/** Makes the encoder of an exporter. */
export function createEventEncoder(config: ExporterConfig, context: FlowContext): EventEncoder {
  const format = formatOf(config);
  const mask = config.fields === undefined ? undefined : compileJsonMask(config.fields);
  const jsonOf = (event: ExportEvent): JsonObject => {
    if (format === 'ecs') return ecsJson(event, context);
    if (format === 'cim') return cimJson(event, context);
    return contractJson(event, context, mask);
  };
  return (event) => {
    const value = jsonOf(event);
    const timeMs = eventTimeMs(event);
    const kind = event.kind === 'flow' && event.row.dns !== undefined ? 'dns' : event.kind;
    const id = eventId(event, context);
    const key = config.type === 'kafka' ? keyOf(config.key, event, context) : '';
    let body: string;
    if (config.type === 'syslog')
      body = syslogMessage({
        facility: config.facility,
        timeMs,
        host: context.nodeName,
        kind,
        warning: isWarning(event),
        dataId: config.structuredDataId,
        data: dataOf(event, id),
        text: JSON.stringify(value),
      });
    else if (config.type === 'otlp') body = otlpRecord(kind, timeMs, id, value, event);
    else if (config.type === 'elasticsearch' && value['@timestamp'] === undefined)
      body = JSON.stringify({ '@timestamp': value.time ?? value.timestamp, ...value });
    else body = JSON.stringify(value);
    return { id, timeMs, key, kind, body };
  };
}

/** The facts that are worth a look without reading the whole event. */
function dataOf(event: ExportEvent, id: string): JsonObject {
  if (event.kind !== 'flow') return { id };
  const { row } = event;
  return {
    id,
    verdict: verdictText(verdictOf(row)),
    src: row.sourceAddress,
    spt: row.sourcePort || undefined,
    dst: row.destination.address,
    dpt: row.destinationPort || undefined,
    proto: transportName(row.protocol),
    srcpod: podOf(row.source) || undefined,
    dstpod: podOf(row.destination) || undefined,
  };
}

function podOf(end: FlowEnd): string {
  return end.pod === '' ? '' : `${end.namespace}/${end.pod}`;
}

function keyOf(choice: string, event: ExportEvent, context: FlowContext): string {
  if (choice === 'none') return '';
  if (event.kind === 'process') {
    const { container } = event.event.process;
    if (container === undefined) return context.nodeName;
    return choice === 'namespace' ? container.namespace : `${container.namespace}/${container.pod}`;
  }
  if (event.kind !== 'flow') return context.nodeName;
  const { row } = event;
  const name = (end: FlowEnd) => podOf(end) || end.address;
  if (choice === 'source') return name(row.source);
  if (choice === 'destination') return name(row.destination);
  if (choice === 'namespace') return row.source.namespace || row.destination.namespace || context.nodeName;
  return connectionKey(row);
}

/** The same for both directions of a connection. */
function connectionKey(row: FlowRow): string {
  const ends = [`${row.source.address} ${row.sourcePort}`, `${row.destination.address} ${row.destinationPort}`];
  return `${row.protocol} ${ends.sort().join(' ')}`;
}

type Tree = Map<string, Tree | true>;

/** Keeps of an object what paths such as `source.pod_name` name; they go through lists. */
export function compileJsonMask(paths: readonly string[]): (value: JsonObject) => JsonObject {
  const root: Tree = new Map();
  for (const path of paths) {
    let tree = root;
    const names = path.split('.');
    for (const [i, name] of names.entries()) {
      const below = tree.get(name);
      if (below === true) break;
      if (i === names.length - 1) tree.set(name, true);
      else {
        const next: Tree = below ?? new Map();
        tree.set(name, next);
        tree = next;
      }
    }
  }
  return (value) => keep(value, root) as JsonObject;
}

function keep(value: unknown, tree: Tree): unknown {
  if (Array.isArray(value)) return value.map((each) => keep(each, tree));
  if (typeof value !== 'object' || value === null) return value;
  const kept: JsonObject = {};
  for (const [name, below] of tree) {
    const found = (value as JsonObject)[name];
    if (found !== undefined) kept[name] = below === true ? found : keep(found, below);
  }
  return kept;
}
