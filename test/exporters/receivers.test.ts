// Against real receivers, which take longer to get and to start than everything else: `make exporters`.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Consumer, stringDeserializers } from '@platformatic/kafka';
import { createSink } from '../../src/observe/export/create-sink.ts';
import { createEventEncoder } from '../../src/observe/export/encode-event.ts';
import { parseExportConfig } from '../../src/observe/export/export-config.ts';
import { startExporter } from '../../src/observe/export/exporter.ts';
import { until } from '../../src/observe/export/testdata/receivers.ts';
import { addresses, createScene, makeEvent } from '../../src/observe/flows/testdata/scene.ts';
import { startKafka, startOpenSearch } from './java-receivers.ts';

const count = 3_000;

/** Exports `count` flows, with a receiver that is ended and begun again in the middle. */
async function exportAll(t: TestContext, yaml: string, restart: () => Promise<void>) {
  const scene = createScene(count);
  for (let i = 0; i < count; i++)
    scene.record(makeEvent({ from: addresses.web, to: i % 2 === 0 ? addresses.far : addresses.db, sport: 1024 + i }));
  const [config] = parseExportConfig(`exporters: [${yaml}]`, 'test', scene.context);
  const folder = mkdtempSync(join(tmpdir(), 'weir-exporters-'));
  const warnings: unknown[] = [];
  const exporter = startExporter({
    config: config!,
    context: scene.context,
    folder,
    sink: await createSink(config!, scene.context, undefined, () => {}),
    warn: (message, fields) => warnings.push(message, fields),
  });
  t.after(async () => {
    await exporter.close();
    rmSync(folder, { recursive: true, force: true });
  });
  const rows = scene.rows();
  for (const row of rows.slice(0, count / 2)) exporter.offerFlow(row);
  exporter.flush();
  await until('something has arrived', () => exporter.status().sent > 0, 60_000);
  const restarted = restart();
  for (const row of rows.slice(count / 2)) exporter.offerFlow(row);
  exporter.flush();
  await restarted;
  await until(`all has arrived: ${JSON.stringify(warnings)}`, () => exporter.status().queue.events === 0, 120_000);
  const { refused, lost } = exporter.status();
  assert.deepEqual([refused, lost], [0, 0], JSON.stringify(warnings));
  const encode = createEventEncoder(config!, scene.context);
  return { ids: rows.map((row) => encode({ kind: 'flow', row }).id), scene, config: config! };
}

test('OpenSearch has every flow once, although it was killed in between', async (t) => {
  const receiver = await startOpenSearch(t);
  if (receiver === undefined) return;
  const yaml = `{name: os, type: elasticsearch, url: "${receiver.url}", index: "weir-{date}", batch: {events: 100, seconds: 0}}`;
  const { ids } = await exportAll(t, yaml, receiver.restart);
  await fetch(`${receiver.url}/_refresh`, { method: 'POST' });
  const answer = (await (await fetch(`${receiver.url}/weir-2026.01.01/_search?size=10000&_source=false`)).json()) as {
    hits: { hits: { _id: string }[] };
  };
  const found = answer.hits.hits.map((each) => each._id).sort();
  assert.deepEqual(found, ids.sort());
  const one = (await (await fetch(`${receiver.url}/weir-2026.01.01/_doc/${ids[0]}`)).json()) as {
    _source: { source: { ip: string }; event: { category: string[] } };
  };
  assert.equal(one._source.source.ip, addresses.web);
  assert.deepEqual(one._source.event.category, ['network']);
});

test('OpenSearch refuses one document of a batch, and takes the others', async (t) => {
  const receiver = await startOpenSearch(t);
  if (receiver === undefined) return;
  const mapping = { mappings: { properties: { n: { type: 'integer' } } } };
  await fetch(`${receiver.url}/strict`, {
    method: 'PUT',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(mapping),
  });
  const yaml = `exporters: [{name: os, type: elasticsearch, url: "${receiver.url}", index: strict}]`;
  const context = createScene(1).context;
  const sink = await createSink(parseExportConfig(yaml, 'test', context)[0]!, context, undefined, () => {});
  const event = (n: number, value: unknown) => ({
    ...{ seq: n, timeMs: 0, id: `i${n}`, key: '', kind: 'flow' },
    body: JSON.stringify({ n: value }),
  });
  const signal = AbortSignal.timeout(30_000);
  const result = await sink.send([event(1, 1), event(2, 'no number'), event(3, 3)], signal);
  assert.deepEqual([result.again, result.refused], [[], 1]);
  assert.match(result.why!, /^400 mapper_parsing_exception/);
  assert.deepEqual(await sink.send([event(1, 1)], signal), { again: [], refused: 0 }, 'what is there has arrived');
  await sink.close();
});

test('Kafka has every flow, although it was killed in between, under its key and with its id', async (t) => {
  const receiver = await startKafka(t);
  if (receiver === undefined) return;
  const yaml = `{name: k, type: kafka, brokers: ["${receiver.broker}"], topic: flows, key: destination, timeoutSeconds: 5, batch: {events: 100, seconds: 0}}`;
  const { ids } = await exportAll(t, yaml, receiver.restart);
  const consumer = new Consumer({
    groupId: 'test',
    clientId: 'test',
    bootstrapBrokers: [receiver.broker],
    deserializers: stringDeserializers,
  });
  t.after(() => consumer.close(true));
  const stream = await consumer.consume({ topics: ['flows'], mode: 'earliest', autocommit: false } as never);
  const seen = new Map<string, number>();
  const keys = new Map<string, Set<number>>();
  stream.on('data', (message: { key: unknown; headers: Map<unknown, unknown>; partition: number; value: unknown }) => {
    const id = String(message.headers.get('weir-id'));
    seen.set(id, (seen.get(id) ?? 0) + 1);
    const key = String(message.key);
    keys.set(key, (keys.get(key) ?? new Set()).add(message.partition));
    assert.equal((JSON.parse(String(message.value)) as { flow: { uuid: string } }).flow.uuid, id);
  });
  await until('all were read', () => seen.size >= count, 30_000).catch(() => {});
  assert.deepEqual([...seen.keys()].sort(), ids.sort());
  assert.deepEqual([...keys.keys()].sort(), ['shop/cart-7', 'shop/db-0']);
  for (const partitions of keys.values()) assert.equal(partitions.size, 1, 'one key, one partition');
});
