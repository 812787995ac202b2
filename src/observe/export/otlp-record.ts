// An event as a log record of OpenTelemetry, in the JSON encoding of OTLP.
import { verdictOf } from '../flows/flow-summary.ts';
import { type ExportEvent, isWarning } from './export-event.ts';
import type { JsonObject } from './flow-json.ts';
import { transportName, verdictText } from './flow-words.ts';

const severities = { information: 9, warning: 13 } as const;

/** Writes a LogRecord; the event is its body. */
export function otlpRecord(kind: string, timeMs: number, id: string, value: JsonObject, event: ExportEvent): string {
  const row = event.kind === 'flow' ? event.row : undefined;
  const verdict = row && verdictText(verdictOf(row));
  const warning = isWarning(event);
  const attributes: JsonObject = {
    'event.name': `weir.${kind}`,
    'log.record.uid': id,
    ...(row && {
      'weir.verdict': verdict,
      'source.address': row.sourceAddress,
      'source.port': row.sourcePort || undefined,
      'destination.address': row.destination.address,
      'destination.port': row.destinationPort || undefined,
      'network.transport': transportName(row.protocol),
      'network.type': row.ipv6 ? 'ipv6' : 'ipv4',
    }),
  };
  return JSON.stringify({
    timeUnixNano: nanosText(timeMs),
    severityNumber: warning ? severities.warning : severities.information,
    severityText: warning ? 'WARN' : 'INFO',
    body: anyValue(value),
    attributes: keyValues(attributes),
  });
}

/** Nanoseconds as OTLP's JSON has them: text, because they are beyond what numbers hold exactly. */
export function nanosText(ms: number): string {
  return String(BigInt(Math.round(ms * 1000)) * 1000n);
}

/** Attributes; undefined values are left out. */
export function keyValues(values: JsonObject): { key: string; value: unknown }[] {
  return Object.entries(values).flatMap(([key, value]) =>
    value === undefined ? [] : [{ key, value: anyValue(value) }],
  );
}

function anyValue(value: unknown): unknown {
  if (typeof value === 'string') return { stringValue: value };
  if (typeof value === 'boolean') return { boolValue: value };
  if (typeof value === 'number')
    return Number.isSafeInteger(value) ? { intValue: String(value) } : { doubleValue: value };
  if (Array.isArray(value)) return { arrayValue: { values: value.map(anyValue) } };
  if (typeof value === 'object' && value !== null) return { kvlistValue: { values: keyValues(value as JsonObject) } };
  return {};
}
