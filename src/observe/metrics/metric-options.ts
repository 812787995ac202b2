// Which metrics of flows are made, and with which labels, as the ecosystem writes it:
// `flow:sourceContext=workload|pod;destinationContext=dns|ip;labelsContext=source_namespace,destination_namespace`.
import { nearestName } from '../../core/nearest-name.ts';

/** Metrics by the names under which they are asked for. */
export const metricNames = [
  'dns',
  'drop',
  'flow',
  'flows-to-world',
  'icmp',
  'policy',
  'port-distribution',
  'tcp',
] as const;
/** One of them. */
export type MetricName = (typeof metricNames)[number];

/** What an end can be called. */
export const contextNames = [
  'app',
  'dns',
  'identity',
  'ip',
  'namespace',
  'pod',
  'pod-name',
  'reserved-identity',
  'workload',
  'workload-name',
] as const;
/** One of them. */
export type ContextName = (typeof contextNames)[number];

/** Labels of their own. */
const labelContexts = [
  'source_ip',
  'source_pod',
  'source_namespace',
  'source_workload',
  'source_workload_kind',
  'source_app',
  'destination_ip',
  'destination_pod',
  'destination_namespace',
  'destination_workload',
  'destination_workload_kind',
  'destination_app',
  'traffic_direction',
] as const;
/** One of them. */
export type LabelContext = (typeof labelContexts)[number];

/** A metric that is wanted. The first context of a list that says something is used. */
export interface MetricOptions {
  readonly name: MetricName;
  readonly source: readonly ContextName[];
  readonly destination: readonly ContextName[];
  /** In place of `source` and `destination` for flows seen at the one end, where they are given. */
  readonly sourceEgress: readonly ContextName[];
  readonly sourceIngress: readonly ContextName[];
  readonly destinationEgress: readonly ContextName[];
  readonly destinationIngress: readonly ContextName[];
  readonly labels: readonly LabelContext[];
  /** dns: the name asked for is a label. */
  readonly query: boolean;
  /** dns: questions for AAAA do not count. */
  readonly ignoreAaaa: boolean;
  /** flows-to-world: every packet that is reported and not only the first of a connection; drops of every reason; the port. */
  readonly anyDrop: boolean;
  readonly port: boolean;
  readonly synOnly: boolean;
}

/** What is wrong with a wish, beginning with what was written. */
export class MetricOptionError extends Error {}

/** The metrics that are made when none are asked for. */
export const defaultMetrics: readonly string[] = ['dns', 'drop', 'flow', 'icmp', 'policy', 'tcp'];

const contextOptions = {
  sourceContext: 'source',
  destinationContext: 'destination',
  sourceEgressContext: 'sourceEgress',
  sourceIngressContext: 'sourceIngress',
  destinationEgressContext: 'destinationEgress',
  destinationIngressContext: 'destinationIngress',
} as const;
const flagOptions = {
  query: 'query',
  ignoreAAAA: 'ignoreAaaa',
  'any-drop': 'anyDrop',
  port: 'port',
  'syn-only': 'synOnly',
} as const;
const flagsOf: Partial<Record<MetricName, readonly (keyof typeof flagOptions)[]>> = {
  dns: ['query', 'ignoreAAAA'],
  'flows-to-world': ['any-drop', 'port', 'syn-only'],
};

/** Reads a wish; throws MetricOptionError. */
export function parseMetric(text: string): MetricOptions {
  const [head = '', ...rest] = text.split(':');
  const name = oneOf(text, head, metricNames, 'metric');
  const options: Record<string, unknown> = {
    name,
    source: [],
    destination: [],
    sourceEgress: [],
    sourceIngress: [],
    destinationEgress: [],
    destinationIngress: [],
    labels: [],
    query: false,
    ignoreAaaa: false,
    anyDrop: false,
    port: false,
    synOnly: false,
  };
  for (const option of rest.join(':').split(';').filter(Boolean)) {
    const [key = '', value] = option.split('=', 2) as [string, string?];
    if (key in contextOptions)
      options[contextOptions[key as keyof typeof contextOptions]] = (value ?? '')
        .split('|')
        .map((each) => oneOf(text, each, contextNames, 'context'));
    else if (key === 'labelsContext')
      options.labels = (value ?? '').split(',').map((each) => oneOf(text, each, labelContexts, 'label'));
    else if (flagsOf[name]?.includes(key as keyof typeof flagOptions)) {
      if (value !== undefined && value !== 'true' && value !== 'false')
        throw new MetricOptionError(`${text}: ${key} is given as it is, or as ${key}=false`);
      options[flagOptions[key as keyof typeof flagOptions]] = value !== 'false';
    } else {
      const known = [...Object.keys(contextOptions), 'labelsContext', ...(flagsOf[name] ?? [])];
      throw new MetricOptionError(`${text}: ${name} has no option ${key}; it has ${known.join(', ')}`);
    }
  }
  return options as unknown as MetricOptions;
}

function oneOf<T extends string>(text: string, given: string, known: readonly T[], what: string): T {
  if (known.includes(given as T)) return given as T;
  const near = nearestName(given, known);
  throw new MetricOptionError(
    `${text}: there is no ${what} ${JSON.stringify(given)}${near === undefined ? '' : ` (did you mean ${near}?)`}; there are ${known.join(', ')}`,
  );
}
