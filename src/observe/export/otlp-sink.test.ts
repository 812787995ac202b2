import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import { addresses, createScene, makeEvent } from '../flows/testdata/scene.ts';
import { createEventEncoder } from './encode-event.ts';
import { type ConfigOf, parseExportConfig } from './export-config.ts';
import { createOtlpSink, otlpMetrics, type PrometheusMetric } from './otlp-sink.ts';
import { BatchRefused } from './sink.ts';
import { httpReceiver } from './testdata/receivers.ts';

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
