// OTLP over HTTP with JSON: logs for events, and the agent's own metrics.
import type { FlowContext } from '../flows/flow-message.ts';
import type { ConfigOf } from './export-config.ts';
import { authorization, createHttpClient, type HttpAnswer, member, notTaken, parseAnswer } from './http-post.ts';
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
  const tellOfMetrics = sayOnce(onError);
  const tellOfLogs = sayOnce(onError);
  let sending = false;

  async function sendMetrics(): Promise<void> {
    // A receiver that is slow gets what it missed with the next ones: they are sums.
    if (sending) return;
    sending = true;
    try {
      const list = otlpMetrics(await metrics!(), performance.timeOrigin, Date.now());
      const body = JSON.stringify({ resourceMetrics: [{ resource, scopeMetrics: [{ scope, metrics: list }] }] });
      const signal = AbortSignal.timeout(config.timeoutSeconds * 1000);
      const answer = await http.post('/v1/metrics', headers(), body, signal);
      if (!hasTaken(answer)) throw notTaken(answer);
      const { rejected, message } = readPartialSuccess(answer.text, 'rejectedDataPoints');
      if (rejected > 0) throw new Error(`the receiver rejects ${rejected} data points: ${message}`);
      tellOfMetrics(message && `of the metrics the receiver says: ${message}`);
    } catch (error) {
      tellOfMetrics(`metrics were not sent: ${(error as Error).message}`);
    } finally {
      sending = false;
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
      if (!hasTaken(answer)) throw notTaken(answer);
      const { rejected, message } = readPartialSuccess(answer.text, 'rejectedLogRecords');
      if (rejected === 0) {
        tellOfLogs(message && `of the events the receiver says: ${message}`);
        return allArrived;
      }
      // The protocol forbids sending them again, and does not say which they are.
      return { again: [], refused: Math.min(batch.length, rejected), why: message || 'the receiver does not say why' };
    },
    close() {
      clearInterval(timer);
      http.close();
    },
  };
}

/** Some receivers have no answer to give: 202 or 204, where the protocol has 200. */
function hasTaken({ status }: HttpAnswer): boolean {
  return status >= 200 && status < 300;
}

/** How many were rejected, and what the receiver has to say; it may have something to say when none were. */
function readPartialSuccess(text: string, name: string): { rejected: number; message: string } {
  const partial = member(parseAnswer(text), 'partialSuccess');
  const rejected = Math.floor(Number(member(partial, name))) || 0;
  return { rejected: Math.max(rejected, 0), message: String(member(partial, 'errorMessage') ?? '') };
}

/** Says something when it is not what was said last; `''` is that all is well. */
function sayOnce(say: (message: string) => void): (message: string) => void {
  let last = '';
  return (message) => {
    if (message !== last && message !== '') say(message);
    last = message;
  };
}

const cumulative = 2;

/** Metrics of OTLP, which have counted since `startMs`. Kinds that have no counterpart are left out. */
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
