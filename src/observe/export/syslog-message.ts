// One message of RFC 5424: header, structured data, and the event as its text.
import type { JsonObject } from './flow-json.ts';

const severities = { warning: 4, information: 6 } as const;

/** Writes a message. Values of `data` that are undefined are left out. */
export function syslogMessage(given: {
  readonly facility: number;
  readonly timeMs: number;
  readonly host: string;
  readonly kind: string;
  readonly warning: boolean;
  readonly dataId: string;
  readonly data: JsonObject;
  readonly text: string;
}): string {
  const priority = given.facility * 8 + (given.warning ? severities.warning : severities.information);
  const time = new Date(given.timeMs).toISOString();
  const host = printable(given.host, 255);
  const data = Object.entries(given.data)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => ` ${name}="${escapeValue(String(value))}"`)
    .join('');
  // A line's end would end the message for receivers that do not count octets; JSON has none.
  return `<${priority}>1 ${time} ${host} weir - ${printable(given.kind, 32)} [${given.dataId}${data}] ${given.text}`;
}

function printable(text: string, length: number): string {
  return text.replace(/[^!-~]/g, '_').slice(0, length) || '-';
}

function escapeValue(text: string): string {
  return text.replace(/[\\\]"]/g, '\\$&').replaceAll('\n', ' ');
}
