// What is left of a flow's extensions. They are a Struct; only what is listed here goes on.
import { fromBinary, toBinary } from '@bufbuild/protobuf';
import { type Any, StructSchema } from '@bufbuild/protobuf/wkt';

/** How much of a process is shown. */
export type ProcessView = 'hidden' | 'without-arguments' | 'whole';

const structUrl = 'type.googleapis.com/google.protobuf.Struct';

/** Of the connection itself: both ends know it. Counts of what was held back speak of other connections. */
const plain = new Set([
  'report',
  'end_cause',
  'closed_by',
  'packets_sent',
  'bytes_sent',
  'packets_received',
  'bytes_received',
  'duration_ms',
]);
/** Measured by the socket of one end, and of no use to tell the two apart. */
const measured = new Set(['handshake_us', 'rtt_us', 'min_rtt_us', 'retransmits']);

/** The extensions that may be seen; undefined when there are none. `policies` says whose verdicts may be told. */
export function redactExtensions(
  extensions: Any | undefined,
  processes: { readonly source: ProcessView; readonly destination: ProcessView },
  policies: { readonly egress: boolean; readonly ingress: boolean },
): Any | undefined {
  if (extensions?.typeUrl !== structUrl) return undefined;
  const { fields } = fromBinary(StructSchema, extensions.value, { readUnknownFields: false });
  const kept: typeof fields = {};
  for (const [name, value] of Object.entries(fields)) {
    const scalar = value.kind.case === 'stringValue' || value.kind.case === 'numberValue';
    if (scalar && (plain.has(name) || measured.has(name))) kept[name] = value;
    else if (name === 'staged_denied' && value.kind.case === 'listValue') {
      const values = value.kind.value.values.filter(
        ({ kind }) => kind.case === 'stringValue' && policies[kind.value as 'egress' | 'ingress'] === true,
      );
      if (values.length > 0)
        kept[name] = { ...value, kind: { case: 'listValue', value: { ...value.kind.value, values } } };
    } else if (name === 'source_process' || name === 'destination_process') {
      const view = processes[name === 'source_process' ? 'source' : 'destination'];
      if (view === 'hidden' || value.kind.case !== 'structValue') continue;
      const own = { ...value.kind.value.fields };
      if (view === 'without-arguments') {
        // The folder that a program runs in is told as an argument as often as not.
        delete own.arguments;
        delete own.cwd;
      }
      kept[name] = { ...value, kind: { case: 'structValue', value: { ...value.kind.value, fields: own } } };
    }
  }
  if (Object.keys(kept).length === 0) return undefined;
  const struct = { $typeName: 'google.protobuf.Struct', fields: kept } as const;
  return { ...extensions, value: toBinary(StructSchema, struct) };
}
