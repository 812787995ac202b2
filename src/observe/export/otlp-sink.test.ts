import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import { addresses, createScene, makeEvent } from '../flows/testdata/scene.ts';
import { createEventEncoder } from './encode-event.ts';
import { type ConfigOf, parseExportConfig } from './export-config.ts';
import { createOtlpSink, otlpMetrics, type PrometheusMetric } from './otlp-sink.ts';
import { BatchRefused, ReceiverBusy } from './sink.ts';
import { events, httpReceiver, until } from './testdata/receivers.ts';

const never = new AbortController().signal;

test('events are log records with the flow as body; what the receiver rejects is counted', async (t) => {
  let status = 200;
  let body = '{}';
  const { url, requests } = await httpReceiver(t, (_, response) => response.writeHead(status).end(body));
  const scene = createScene(4);
  scene.record(makeEvent({ from: addresses.web, to: addresses.far }));
  const yaml = `exporters: [{name: o, type: otlp, url: "${url}/"}]`;
  const config = parseExportConfig(yaml, 'test', scene.context)[0] as ConfigOf<'otlp'>;
  const batch = [{ seq: 1, ...createEventEncoder(config, scene.context)({ kind: 'flow', row: scene.ring.get(0) }) }];
  const sink = createOtlpSink(config, scene.context, undefined, () => {});
  assert.equal((await sink.send(batch, never)).refused, 0);
  assert.equal(requests[0]!.path, '/v1/logs');
  const sent = JSON.parse(requests[0]!.text) as {
    resourceLogs: {
      scopeLogs: { logRecords: { timeUnixNano: string; body: { kvlistValue: { values: { key: string }[] } } }[] }[];
    }[];
  };
  const [record] = sent.resourceLogs[0]!.scopeLogs[0]!.logRecords;
  assert.equal(record!.timeUnixNano, '1767225605000000000');
  assert.deepEqual(
    record!.body.kvlistValue.values.map((each) => each.key),
    ['flow', 'node_name', 'time'],
  );
  body = '{"partialSuccess":{"rejectedLogRecords":"1","errorMessage":"no"}}';
  assert.deepEqual(await sink.send(batch, never), { again: [], refused: 1, why: 'no' });
  status = 400;
  await assert.rejects(sink.send(batch, never), BatchRefused);
  status = 503;
  await assert.rejects(sink.send(batch, never), /503/);
  await sink.close();
});

function simpleSink(
  url: string,
  more = '',
  metrics: () => Promise<readonly PrometheusMetric[]> = async () => [],
  onError: (message: string) => void = () => {},
) {
  const { context } = createScene(1);
  const yaml = `exporters: [{name: o, type: otlp, url: "${url}"${more}}]`;
  return createOtlpSink(parseExportConfig(yaml, 'test', context)[0] as ConfigOf<'otlp'>, context, metrics, onError);
}

test('a receiver that takes events without an answer has them', async (t) => {
  for (const status of [202, 204]) {
    const { url } = await httpReceiver(t, (_, response) => response.writeHead(status).end());
    const sink = simpleSink(url);
    assert.deepEqual(await sink.send(events(2), never), { again: [], refused: 0 });
    await sink.close();
  }
});

test('a receiver without time says when it has some', async (t) => {
  for (const status of [429, 503]) {
    const { url } = await httpReceiver(t, (_, response) => response.writeHead(status, { 'retry-after': '7' }).end());
    const sink = simpleSink(url);
    await assert.rejects(sink.send(events(1), never), (error) => {
      assert.ok(error instanceof ReceiverBusy);
      return error.retryAfterMs === 7_000;
    });
    await sink.close();
  }
});

test('a partial success that rejects nothing is a word of warning, told once', async (t) => {
  let body = '{"partialSuccess":{"errorMessage":"old fields"}}';
  const { url } = await httpReceiver(t, (_, response) => response.end(body));
  const told: string[] = [];
  const sink = simpleSink(url, '', undefined, (message) => told.push(message));
  for (let i = 0; i < 3; i++) assert.deepEqual(await sink.send(events(2), never), { again: [], refused: 0 });
  assert.deepEqual(told, ['of the events the receiver says: old fields']);
  body = '{"partialSuccess":{"rejectedLogRecords":"1"}}';
  assert.deepEqual(await sink.send(events(2), never), { again: [], refused: 1, why: 'the receiver does not say why' });
  await sink.close();
});

test('metrics are sent one after another; the same trouble is told once, and what was rejected is told', async (t) => {
  let answer: { status: number; body: string } | undefined = { status: 503, body: 'no room' };
  const waiting: (() => void)[] = [];
  const { url, requests } = await httpReceiver(t, (_, response) => {
    if (answer === undefined) waiting.push(() => response.end());
    else response.writeHead(answer.status).end(answer.body);
  });
  const told: string[] = [];
  t.mock.timers.enable({ apis: ['setInterval'] });
  let asked = 0;
  const metrics = async () => {
    asked++;
    return [];
  };
  const sink = simpleSink(url, ', metricsSeconds: 1', metrics, (message) => told.push(message));
  /** Time goes on until it is so: what is under way when it does lets a tick pass. */
  const tickUntil = (what: string, holds: () => boolean) =>
    until(what, () => {
      if (!holds()) t.mock.timers.tick(1_000);
      return holds();
    });
  await tickUntil('the trouble is told', () => told.length === 1);
  assert.match(told[0]!, /metrics were not sent: the receiver answers 503: no room/);
  await tickUntil('the same trouble again', () => requests.length === 2);
  answer = { status: 200, body: '{"partialSuccess":{"rejectedDataPoints":"2","errorMessage":"too old"}}' };
  await tickUntil('what was rejected is told', () => told.length === 2);
  assert.deepEqual(told.slice(1), ['metrics were not sent: the receiver rejects 2 data points: too old']);
  answer = undefined;
  await tickUntil('one waits', () => waiting.length === 1);
  const before = asked;
  t.mock.timers.tick(5_000);
  assert.equal(asked, before, 'one waits: no other beside it');
  assert.equal(requests[0]!.path, '/v1/metrics');
  for (const release of waiting) release();
  await sink.close();
});

test('otlpMetrics() has sums, gauges, and histograms by bucket instead of cumulative', async () => {
  const registry = new Registry();
  new Counter({ name: 'c', help: 'h', labelNames: ['a'], registers: [registry] }).inc({ a: 'x' }, 3);
  new Gauge({ name: 'g', help: 'h', registers: [registry] }).set(2);
  const histogram = new Histogram({ name: 'h', help: 'h', buckets: [1, 5], registers: [registry] });
  for (const value of [0.5, 3, 4, 9]) histogram.observe(value);
  const metrics = otlpMetrics((await registry.getMetricsAsJSON()) as unknown as PrometheusMetric[], 0, 1);
  const [sum, gauge, buckets] = metrics as Record<
    string,
    { isMonotonic?: boolean; dataPoints: Record<string, unknown>[] }
  >[];
  assert.deepEqual([sum!.sum!.isMonotonic, sum!.sum!.dataPoints[0]!.asDouble], [true, 3]);
  assert.equal(gauge!.gauge!.dataPoints[0]!.asDouble, 2);
  const { count, sum: total, explicitBounds, bucketCounts } = buckets!.histogram!.dataPoints[0]!;
  assert.deepEqual(
    { count, total, explicitBounds, bucketCounts },
    { count: '4', total: 16.5, explicitBounds: [1, 5], bucketCounts: ['1', '2', '1'] },
  );
});
