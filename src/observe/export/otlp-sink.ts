// OTLP over HTTP with JSON: logs for events, and the agent's own metrics.

import type { FlowContext } from '../flows/flow-message.ts';
import type { ConfigOf } from './export-config.ts';
import { authorization, createHttpClient, member, notTaken, parseAnswer } from './http-post.ts';
import { keyValues, nanosText } from './otlp-record.ts';
import { allArrived, BatchRefused, type Sink } from './sink.ts';

/** A metric as prom-client gives it. */
export interface PrometheusMetric {
  readonly name: string;
  readonly help: string;
  readonly type: string;
  readonly values: readonly {
    readonly value: number | string;
    readonly metricName?: string;
    readonly labels: Readonly<Record<string, string | number>>;
  }[];
}

/** Makes a client. With `metrics`, they are sent as often as the configuration says. */
export function createOtlpSink(
  config: ConfigOf<'otlp'>,
  context: FlowContext,
  metrics: (() => Promise<readonly PrometheusMetric[]>) | undefined,
  onError: (message: string) => void,
): Sink {
  const http = createHttpClient(config.url, config);
  const resource = {
    attributes: keyValues({
      'service.name': 'weir-agent',
      'service.version': context.version,
      'host.name': context.nodeName,
      'k8s.node.name': context.nodeName,
    }),
  };
  const scope = { name: 'weir', version: context.version };
  const headers = () => ({ 'content-type': 'application/json', ...authorization(config.auth, 'Bearer') });
  const startedAtMs = Date.now();

  async function sendMetrics(): Promise<void> {
    try {
      const list = otlpMetrics(await metrics!(), startedAtMs, Date.now());
      const body = JSON.stringify({ resourceMetrics: [{ resource, scopeMetrics: [{ scope, metrics: list }] }] });
      const signal = AbortSignal.timeout(config.timeoutSeconds * 1000);
      const answer = await http.post('/v1/metrics', headers(), body, signal);
      if (answer.status !== 200) throw notTaken(answer);
    } catch (error) {
      // They are sums: the next ones say what these would have said.
      onError(`metrics were not sent: ${(error as Error).message}`);
    }
  }
  const { metricsSeconds } = config;
  const timer =
    metrics === undefined || metricsSeconds === undefined
      ? undefined
      : setInterval(() => void sendMetrics(), metricsSeconds * 1000);

  return {
    async send(batch, signal) {
      const logs = `[${batch.map((event) => event.body).join(',')}]`;
      const body = `{"resourceLogs":[{"resource":${JSON.stringify(resource)},"scopeLogs":[{"scope":${JSON.stringify(scope)},"logRecords":${logs}}]}]}`;
      const answer = await http.post('/v1/logs', headers(), body, signal);
      if (answer.status === 400 || answer.status === 413) throw new BatchRefused(notTaken(answer).message);
      if (answer.status !== 200) throw notTaken(answer);
      const partial = member(parseAnswer(answer.text), 'partialSuccess');
      const rejected = Number(member(partial, 'rejectedLogRecords') ?? 0);
      if (!(rejected > 0)) return allArrived;
      // The protocol forbids sending them again, and does not say which they are.
      return {
        again: [],
        refused: Math.min(batch.length, Math.floor(rejected)),
        why: String(member(partial, 'errorMessage')),
      };
    },
    close() {
      clearInterval(timer);
      http.close();
    },
  };
}

const cumulative = 2;

/** Metrics of OTLP. Kinds that have no counterpart are left out. */
export function otlpMetrics(metrics: readonly PrometheusMetric[], startMs: number, nowMs: number): unknown[] {
  const times = { startTimeUnixNano: nanosText(startMs), timeUnixNano: nanosText(nowMs) };
  return metrics.flatMap(({ name, help, type, values }): object[] => {
    const points = () =>
      values
        .filter((each) => Number.isFinite(Number(each.value)))
        .map(({ value, labels }) => ({ ...times, asDouble: Number(value), attributes: keyValues(labels) }));
    if (type === 'counter')
      return [
        {
          name,
          description: help,
          sum: { aggregationTemporality: cumulative, isMonotonic: true, dataPoints: points() },
        },
      ];
    if (type === 'gauge') return [{ name, description: help, gauge: { dataPoints: points() } }];
    if (type !== 'histogram') return [];
    const rows = Map.groupBy(values, ({ labels: { le: _, ...labels } }) => JSON.stringify(labels));
    const dataPoints = [...rows].map(([key, row]) => {
      const buckets = row
        .filter((each) => each.metricName?.endsWith('_bucket'))
        .map((each) => ({
          le: each.labels.le === '+Inf' ? Number.POSITIVE_INFINITY : Number(each.labels.le),
          count: Number(each.value),
        }))
        .sort((a, b) => a.le - b.le);
      const valueWith = (suffix: string) => Number(row.find((each) => each.metricName?.endsWith(suffix))?.value ?? 0);
      return {
        ...times,
        count: String(valueWith('_count')),
        sum: valueWith('_sum'),
        explicitBounds: buckets.filter((each) => Number.isFinite(each.le)).map((each) => each.le),
        bucketCounts: buckets.map((each, i) => String(each.count - (buckets[i - 1]?.count ?? 0))),
        attributes: keyValues(JSON.parse(key) as Record<string, string>),
      };
    });
    return [{ name, description: help, histogram: { aggregationTemporality: cumulative, dataPoints } }];
  });
}
