// What is exported where: one YAML file, checked whole before any of it is used. An error says where and what to do.
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { fromJson } from '@bufbuild/protobuf';
import { parse, YAMLParseError } from 'yaml';
import { z } from 'zod';
import { type FlowFilter, FlowFilterSchema, FlowSchema } from '../../../proto/gen/flow/flow_pb.js';
import { compileFieldMask } from '../flows/field-mask.ts';
import { FilterError } from '../flows/filter-values.ts';
import { compileFilters, type FlowMatch } from '../flows/flow-filter.ts';
import type { FlowContext } from '../flows/flow-message.ts';

/** A file that cannot be used; the message has a line for each mistake. */
export class ExportConfigError extends Error {}

const positive = z.number().positive();
const whole = z.int().positive();
const text = z.string().min(1);

const tls = z.strictObject({
  ca: text.optional(),
  cert: text.optional(),
  key: text.optional(),
  serverName: text.refine((value) => isIP(value) === 0, 'give a name, not an address').optional(),
  verify: z.boolean().default(true),
});
const auth = z
  .strictObject({ tokenFile: text.optional(), user: text.optional(), passwordFile: text.optional() })
  .refine((each) => (each.user === undefined) === (each.passwordFile === undefined), {
    message: 'user and passwordFile belong together',
  });

/** Fields of the flows that an exporter may carry beyond those of the contract. */
const plainFields = [
  ...['report', 'end_cause', 'closed_by', 'packets_sent', 'bytes_sent', 'packets_received', 'bytes_received'],
  ...['duration_ms', 'handshake_us', 'rtt_us', 'min_rtt_us', 'retransmits', 'staged_denied', 'reports_held_back'],
  ...['source_process', 'destination_process'],
];

const formats = ['flow', 'ecs', 'cim'] as const;
const common = {
  name: z
    .string()
    .regex(
      /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/,
      'give lower-case letters, digits and dashes, at most 63: it names a folder',
    ),
  include: z.array(z.record(z.string(), z.unknown())).max(1024).default([]),
  exclude: z.array(z.record(z.string(), z.unknown())).max(1024).default([]),
  fields: z.array(text).max(1024).optional(),
  flows: z.boolean().default(true),
  processes: z.boolean().default(false),
  format: z.enum(formats).optional(),
  aggregate: z
    .strictObject({
      seconds: z.number().min(1).max(86_400),
      by: z
        .array(text)
        .min(1)
        .max(32)
        .default([
          ...['verdict', 'drop_reason_desc', 'traffic_direction', 'source.namespace', 'source.workloads'],
          ...['destination.namespace', 'destination.workloads', 'l4.TCP.destination_port', 'l4.UDP.destination_port'],
        ]),
      groups: whole.max(1_000_000).default(10_000),
    })
    .optional(),
  batch: z
    .strictObject({
      events: whole.max(100_000).default(1_000),
      kilobytes: whole.max(65_536).default(1_024),
      seconds: z.number().min(0).max(300).default(1),
    })
    .prefault({}),
  queue: z.strictObject({ megabytes: positive.max(1_048_576).default(256) }).prefault({}),
  timeoutSeconds: z.number().min(0.1).max(600).default(30),
};

function webAddress(schemes: readonly string[]) {
  return z.string().refine((value) => URL.canParse(value) && schemes.includes(new URL(value).protocol.slice(0, -1)), {
    message: `give an address such as ${schemes[0]}://host:port (${schemes.join(', ')})`,
  });
}
const secret = { tls: tls.optional(), auth: auth.optional() };

const exporter = z.discriminatedUnion('type', [
  z.strictObject({
    ...common,
    type: z.literal('file'),
    path: z.string().startsWith('/', 'give an absolute path'),
    rotate: z
      .strictObject({
        megabytes: positive.default(100),
        hours: positive.optional(),
        keep: z.int().min(0).max(100_000).default(10),
        gzip: z.boolean().default(true),
      })
      .prefault({}),
  }),
  z.strictObject({ ...common, type: z.literal('stdout') }),
  z.strictObject({
    ...common,
    type: z.literal('syslog'),
    address: webAddress(['tls', 'tcp', 'udp']),
    facility: z.int().min(0).max(23).default(16),
    /** RFC 5424 wants a name with an enterprise number; this one is that of documentation (RFC 5612). */
    structuredDataId: z
      .string()
      .regex(/^[!#-<>-\\^-~]{1,32}$/)
      .default('weir@32473'),
    tls: tls.optional(),
  }),
  z.strictObject({
    ...common,
    ...secret,
    type: z.literal('splunk'),
    url: webAddress(['https', 'http']),
    index: text.optional(),
    source: text.default('weir'),
    acknowledgeSeconds: z.number().min(1).max(3_600).default(120),
    gzip: z.boolean().default(true),
  }),
  z.strictObject({
    ...common,
    ...secret,
    type: z.literal('elasticsearch'),
    url: webAddress(['https', 'http']),
    /** A data stream, or an index with `{date}` in its name. */
    index: z
      .string()
      .regex(/^[^A-Z\\/*?"<>| ,#:]+$/, 'give a name in lower case, such as logs-weir.flows-default or weir-{date}')
      .default('logs-weir.flows-default'),
    gzip: z.boolean().default(true),
  }),
  z.strictObject({
    ...common,
    ...secret,
    type: z.literal('kafka'),
    brokers: z
      .array(z.string().regex(/^(\[[0-9a-fA-F:.]+\]|[^:/\s]+):\d{1,5}$/, 'give HOST:PORT'))
      .min(1)
      .max(64),
    topic: z.string().regex(/^[a-zA-Z0-9._-]{1,249}$/, 'give letters, digits, dots, underscores and dashes'),
    key: z.enum(['source', 'destination', 'connection', 'namespace', 'none']).default('connection'),
    compression: z.enum(['none', 'gzip', 'zstd']).default('gzip'),
    sasl: z.enum(['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512']).default('SCRAM-SHA-512'),
  }),
  z.strictObject({
    ...common,
    ...secret,
    type: z.literal('otlp'),
    url: webAddress(['https', 'http']),
    gzip: z.boolean().default(true),
    /** How often the agent's own metrics are sent, too. */
    metricsSeconds: z.number().min(1).max(3_600).optional(),
  }),
]);
const schema = z.strictObject({ exporters: z.array(exporter).max(64) });

/** One exporter as the file has it, with defaults filled in. */
export type ExporterConfig = z.infer<typeof exporter>;
/** The configuration of one kind of exporter. */
export type ConfigOf<T extends ExporterConfig['type']> = Extract<ExporterConfig, { type: T }>;
/** What may be said about TLS. */
export type TlsConfig = z.infer<typeof tls>;
/** Where secrets are. */
export type AuthConfig = z.infer<typeof auth>;
/** How an event is written. */
export type ExportFormat = (typeof formats)[number];

/** The format of an exporter: what its receiver's users know, unless the file says so. */
export function formatOf(config: ExporterConfig): ExportFormat {
  if (config.format !== undefined) return config.format;
  if (config.aggregate !== undefined) return 'flow';
  if (config.type === 'elasticsearch') return 'ecs';
  return config.type === 'splunk' ? 'cim' : 'flow';
}

/** Reads a file. */
export function readExportConfig(file: string, context: FlowContext): ExporterConfig[] {
  let content: string;
  try {
    content = readFileSync(file, 'utf8');
  } catch (error) {
    throw new ExportConfigError(`${file}: ${(error as Error).message}`);
  }
  return parseExportConfig(content, file, context);
}

/** Checks the text of a file. */
export function parseExportConfig(content: string, file: string, context: FlowContext): ExporterConfig[] {
  let value: unknown;
  try {
    value = parse(content, { maxAliasCount: 100 });
  } catch (error) {
    const place = error instanceof YAMLParseError ? error.linePos?.[0] : undefined;
    const where = place === undefined ? '' : `:${place.line}:${place.col}`;
    throw new ExportConfigError(`${file}${where}: ${(error as Error).message.split('\n')[0]}`);
  }
  const result = schema.safeParse(value);
  if (!result.success) {
    const lines = result.error.issues.slice(0, 20).map((issue) => `${file}: ${pathText(issue.path)}: ${issue.message}`);
    throw new ExportConfigError(lines.join('\n'));
  }
  const { exporters } = result.data;
  const names = new Set<string>();
  for (const [i, config] of exporters.entries()) {
    const fail = (field: string, message: string) => {
      throw new ExportConfigError(`${file}: exporters[${i}].${field}: ${message}`);
    };
    if (names.has(config.name)) fail('name', `another exporter is called ${config.name}: give it a name of its own`);
    names.add(config.name);
    compileExportFilters(config, context, fail);
    const format = formatOf(config);
    if (config.fields !== undefined) {
      if (format !== 'flow') fail('fields', `only for format flow; this exporter writes ${format}`);
      const ofContract = config.fields.filter((path) => !plainFields.includes(path.split('.')[0]!));
      const mask = compileFieldMask(FlowSchema, ofContract);
      if ('unknown' in mask) fail('fields', `flows have no field ${JSON.stringify(mask.unknown)}`);
    }
    if (config.aggregate !== undefined && format !== 'flow')
      fail('aggregate', 'only for format flow: say `format: flow`');
    if (config.batch.kilobytes * 1024 * 4 > config.queue.megabytes * 1024 * 1024)
      fail('queue.megabytes', 'must be at least four times batch.kilobytes');
    if (
      'tls' in config &&
      config.tls !== undefined &&
      (config.tls.cert === undefined) !== (config.tls.key === undefined)
    )
      fail('tls', 'cert and key belong together');
  }
  return exporters;
}

/** Which flows an exporter takes. `fail` is told of a filter that cannot be honoured. */
export function compileExportFilters(
  config: ExporterConfig,
  context: FlowContext,
  fail: (field: string, message: string) => void,
): FlowMatch {
  const read = (list: 'include' | 'exclude'): FlowFilter[] =>
    config[list].flatMap((json, i) => {
      try {
        const filter = fromJson(FlowFilterSchema, json as never);
        compileFilters([filter], [], context);
        return [filter];
      } catch (error) {
        fail(`${list}[${i}]`, error instanceof FilterError ? error.message : (error as Error).message);
        return [];
      }
    });
  return compileFilters(read('include'), read('exclude'), context);
}

function pathText(path: readonly PropertyKey[]): string {
  return (
    path
      .map((part) => (typeof part === 'number' ? `[${part}]` : `.${String(part)}`))
      .join('')
      .replace(/^\./, '') || 'the file'
  );
}
