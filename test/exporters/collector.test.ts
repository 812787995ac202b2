// OTLP against a collector of OpenTelemetry.
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { PrometheusMetric } from '../../src/observe/export/otlp-sink.ts';
import { until } from '../../src/observe/export/testdata/receivers.ts';
import { addresses } from '../../src/observe/flows/testdata/scene.ts';
import { exportMended, exportOver, startExport } from './export-flows.ts';
import { type KeyValue, type LogRecord, startCollector } from './otel-collector.ts';

type Collector = NonNullable<Awaited<ReturnType<typeof startCollector>>>;

/** Attributes as an object of plain values. */
function plain(attributes: readonly KeyValue[] = []): Record<string, unknown> {
  return Object.fromEntries(attributes.map(({ key, value }) => [key, Object.values(value as object)[0]]));
}

const uidOf = (record: LogRecord) => String(plain(record.attributes)['log.record.uid']);

function recordsOf(collector: Collector): LogRecord[] {
  return collector.logs().flatMap((each) => each.scopeLogs.flatMap((scope) => scope.logRecords));
}

/** Holds that each event is there as it was sent, and at most `repeats` of them more than once. */
function holdsAll(collector: Collector, events: readonly { id: string; body: string }[], repeats: number): void {
  const records = Map.groupBy(recordsOf(collector), uidOf);
  for (const { id, body } of events) assert.deepEqual(records.get(id)?.[0], JSON.parse(body));
  const twice = [...records.values()].filter((each) => each.length > 1);
  assert.ok(twice.length <= repeats, `${twice.length} arrived more than once`);
}

test('a collector of OpenTelemetry', async (t) => {
  const collector = await startCollector(t);
  if (collector === undefined) return;
  const { files, folder } = collector;
  t.beforeEach(() => collector.forget());
  const yamlFor = (rest: string) => `{name: o, type: otlp, url: "${collector.url}", ${rest}}`;

  await t.test('has every flow with its attributes, although it was killed in between', async (t) => {
    const batch = 100;
    const yaml = yamlFor(`batch: {events: ${batch}, seconds: 0}`);
    const events = await exportOver(t, yaml, 3_000, collector.restart);
    holdsAll(collector, events, batch);
    const [first] = collector.logs();
    assert.deepEqual(plain(first!.resource.attributes), {
      'service.name': 'weir-agent',
      'service.version': 'weir v0',
      'host.name': 'node1',
      'k8s.node.name': 'node1',
    });
    const { id } = events[0]!;
    assert.deepEqual(plain(recordsOf(collector).find((each) => uidOf(each) === id)!.attributes), {
      'event.name': 'weir.flow',
      'log.record.uid': id,
      'weir.verdict': 'FORWARDED',
      'source.address': addresses.web,
      'source.port': '2024',
      'destination.address': addresses.far,
      'destination.port': '5432',
      'network.transport': 'tcp',
      'network.type': 'ipv4',
    });
  });

  await t.test('without gzip', async (t) => {
    holdsAll(collector, await exportOver(t, yamlFor('gzip: false'), 100, async () => {}), 0);
  });

  await t.test('429: its Retry-After is waited for, and nothing is lost', async (t) => {
    const seconds = 3;
    collector.refuse(`busy ${seconds}`);
    const { exporter, warnings, events, offer, whenAllSent } = await startExport(t, yamlFor('batch: {seconds: 0}'), 10);
    const began = performance.now();
    offer(0, 10);
    await until('it was refused', () => warnings.length > 0);
    collector.refuse(undefined);
    assert.match(warnings[0]!, /answers 429: .*no room/);
    await whenAllSent();
    assert.ok(performance.now() - began >= seconds * 1_000, 'the first pause alone would be 0.5 s');
    assert.equal(exporter.status().retries, 1);
    holdsAll(collector, events, 0);
  });

  await t.test('400: a batch is halved until the bad record is alone, which is given up', async (t) => {
    const { exporter, warnings, events, offer } = await startExport(t, yamlFor('batch: {seconds: 0}'), 100);
    const bad = events[37]!.id;
    collector.refuse(`bad ${bad}`);
    offer(0, 100);
    await until(`all was tried: ${warnings}`, () => exporter.status().queue.events === 0);
    collector.refuse(undefined);
    const { sent, refused, lost } = exporter.status();
    assert.deepEqual([sent, refused, lost], [99, 1, 0]);
    assert.match(warnings[0]!, /1 events given up: the receiver answers 400: .*a record has the uid/);
    const arrived = recordsOf(collector).map(uidOf);
    assert.deepEqual(
      arrived.sort(),
      events
        .map((each) => each.id)
        .filter((id) => id !== bad)
        .sort(),
    );
  });

  await t.test('503, for want of memory: all again when it has some', async (t) => {
    await collector.restartWith({ fewMemory: true });
    const { events, offer, warnings, whenAllSent } = await startExport(t, yamlFor('batch: {seconds: 0}'), 10);
    offer(0, 10);
    await until('it was refused', () => warnings.length > 0);
    assert.match(warnings[0]!, /answers 503: .*memory/);
    await collector.restartWith({ fewMemory: false });
    await whenAllSent();
    holdsAll(collector, events, 0);
  });

  await t.test('what is too large for it is sent in parts', async (t) => {
    await collector.restartWith({ maxBodyBytes: 50_000 });
    holdsAll(collector, await exportOver(t, yamlFor('batch: {events: 1000}'), 1_000, async () => {}), 0);
    await collector.restartWith({ maxBodyBytes: 20 << 20 });
  });

  await t.test('over TLS: an authority that has not signed its certificate is told, and costs no flow', async (t) => {
    const ca = join(folder, 'given-ca.pem');
    writeFileSync(ca, readFileSync(files.otherCa));
    const mutual = `cert: "${files.clientCertificate}", key: "${files.clientKey}"`;
    const yaml = `{name: o, type: otlp, url: "${collector.secureUrl}", tls: {ca: "${ca}", ${mutual}}}`;
    const events = await exportMended(t, yaml, /give its authority as tls\.ca/, () =>
      writeFileSync(ca, readFileSync(files.ca)),
    );
    holdsAll(collector, events, 0);
  });

  await t.test('over TLS: a missing certificate of the client is told', async (t) => {
    const yaml = `{name: o, type: otlp, url: "${collector.secureUrl}", tls: {ca: "${files.ca}"}}`;
    const { offer, warnings } = await startExport(t, yaml, 1);
    offer(0, 1);
    await until('there is a warning', () => warnings.length > 0);
    assert.match(warnings[0]!, /wants a certificate: give one as tls\.cert and tls\.key/);
  });

  await t.test('metrics arrive as often as is said', async (t) => {
    const registry = new Registry();
    const flows = new Counter({ name: 'flows_total', help: 'Flows.', labelNames: ['verdict'], registers: [registry] });
    new Gauge({ name: 'pods', help: 'Pods.', registers: [registry] }).set(2.5);
    const histogram = new Histogram({ name: 'seconds', help: 'Times.', buckets: [1, 5], registers: [registry] });
    for (const value of [0.5, 3, 4, 9]) histogram.observe(value);
    collectDefaultMetrics({ register: registry, prefix: 'weir_agent_' });
    flows.inc({ verdict: 'DROPPED' }, 3);
    const all = async () => (await registry.getMetricsAsJSON()) as unknown as readonly PrometheusMetric[];
    const { warnings } = await startExport(t, yamlFor('metricsSeconds: 1'), 1, all);
    const valuesOf = (name: string) =>
      collector
        .metrics()
        .flatMap((each) => each.scopeMetrics.flatMap((scope) => scope.metrics))
        .filter((each) => each.name === name);
    await until('they are there', () => valuesOf('flows_total').length > 0);
    flows.inc({ verdict: 'DROPPED' }, 2);
    const points = () => valuesOf('flows_total').map((each) => each.sum!.dataPoints[0]!);
    await until('they are there again', () => points().at(-1)!.asDouble === 5);
    assert.deepEqual(plain(points()[0]!.attributes), { verdict: 'DROPPED' });
    assert.equal(points()[0]!.asDouble, 3);
    assert.equal(new Set(points().map((each) => each.startTimeUnixNano)).size, 1, 'a counter has one beginning');
    const [total] = valuesOf('flows_total');
    assert.deepEqual([total!.description, total!.sum!.isMonotonic], ['Flows.', true]);
    assert.equal(valuesOf('pods')[0]!.gauge!.dataPoints[0]!.asDouble, 2.5);
    const { count, sum, explicitBounds, bucketCounts } = valuesOf('seconds')[0]!.histogram!.dataPoints[0]!;
    assert.deepEqual([count, sum, explicitBounds, bucketCounts], ['4', 16.5, [1, 5], ['1', '2', '1']]);
    assert.ok(valuesOf('weir_agent_process_cpu_seconds_total').length > 0);
    assert.deepEqual(plain(collector.metrics()[0]!.resource.attributes)['service.name'], 'weir-agent');
    assert.deepEqual(warnings, []);
  });
});
