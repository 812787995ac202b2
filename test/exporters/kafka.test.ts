// Kafka against a broker.
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Consumer, stringDeserializers } from '@platformatic/kafka';
import { until } from '../../src/observe/export/testdata/receivers.ts';
import { exportMended, exportOver } from './export-flows.ts';
import { kafkaUser, startKafka } from './java-receivers.ts';

/** Reads a topic until it has events with so many ids. */
async function read(t: TestContext, broker: string, topic: string, count: number) {
  const consumer = new Consumer({
    groupId: `test-${topic}`,
    clientId: 'test',
    bootstrapBrokers: [broker],
    deserializers: stringDeserializers,
  });
  t.after(() => consumer.close(true));
  const stream = await consumer.consume({ topics: [topic], mode: 'earliest', autocommit: false } as never);
  const ids = new Set<string>();
  const partitions = new Map<string, Set<number>>();
  stream.on('data', (message: { key: unknown; headers: Map<unknown, unknown>; partition: number; value: unknown }) => {
    const id = String(message.headers.get('weir-id'));
    assert.equal((JSON.parse(String(message.value)) as { flow: { uuid: string } }).flow.uuid, id);
    ids.add(id);
    const key = String(message.key);
    partitions.set(key, (partitions.get(key) ?? new Set()).add(message.partition));
  });
  await until('all were read', () => ids.size >= count, 60_000).catch(() => {});
  return { ids: [...ids].sort(), partitions };
}

const idsOf = (events: readonly { id: string }[]) => events.map((each) => each.id).sort();

test('Kafka', async (t) => {
  const kafka = await startKafka(t);
  if (kafka === undefined) return;
  const { files, folder } = kafka;
  const passwordFile = join(folder, 'password');
  const yamlFor = (topic: string, broker: string, rest: string) =>
    `{name: ${topic}, type: kafka, brokers: ["${broker}"], topic: ${topic}, timeoutSeconds: 5, batch: {events: 100, seconds: 0}, ${rest}}`;
  const login = `auth: {user: ${kafkaUser.name}, passwordFile: "${passwordFile}"}`;

  await t.test('every flow arrives under its key and with its id, although it was killed in between', async (t) => {
    const events = await exportOver(t, yamlFor('flows', kafka.plain, 'key: destination'), 3_000, kafka.restart);
    const { ids, partitions } = await read(t, kafka.plain, 'flows', events.length);
    assert.deepEqual(ids, idsOf(events));
    assert.deepEqual([...partitions.keys()].sort(), ['shop/cart-7', 'shop/db-0']);
    for (const each of partitions.values()) assert.equal(each.size, 1, 'one key, one partition');
  });

  for (const mechanism of ['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512']) {
    await t.test(`${mechanism}: a wrong password is told, and costs no flow`, async (t) => {
      writeFileSync(passwordFile, 'guessed');
      const rest = `tls: {ca: "${files.ca}"}, ${login}, sasl: ${mechanism}`;
      const yaml = yamlFor(mechanism.toLowerCase(), kafka.secure, rest);
      const events = await exportMended(t, yaml, /SASL authentication failed/, () =>
        writeFileSync(passwordFile, `${kafkaUser.password}\n`),
      );
      const { ids } = await read(t, kafka.plain, mechanism.toLowerCase(), events.length);
      assert.deepEqual(ids, idsOf(events));
    });
  }

  await t.test('an authority that has not signed its certificate is told, and costs no flow', async (t) => {
    const ca = join(folder, 'given-ca.pem');
    writeFileSync(ca, readFileSync(files.otherCa));
    const yaml = yamlFor('authority', kafka.secure, `tls: {ca: "${ca}"}, ${login}`);
    const events = await exportMended(t, yaml, /give its authority as tls\.ca/, () =>
      writeFileSync(ca, readFileSync(files.ca)),
    );
    const { ids } = await read(t, kafka.plain, 'authority', events.length);
    assert.deepEqual(ids, idsOf(events));
  });

  await t.test('a client’s certificate instead of a password', async (t) => {
    const tls = `tls: {ca: "${files.ca}", cert: "${files.clientCertificate}", key: "${files.clientKey}"}`;
    const events = await exportOver(t, yamlFor('mutual', kafka.mutual, tls), 100, async () => {});
    const { ids } = await read(t, kafka.plain, 'mutual', events.length);
    assert.deepEqual(ids, idsOf(events));
  });

  await t.test('a broker that says that it is an address', async (t) => {
    const yaml = yamlFor(
      'address',
      kafka.byAddress.replace('127.0.0.1', 'localhost'),
      `tls: {ca: "${files.ca}"}, ${login}`,
    );
    const events = await exportOver(t, yaml, 100, async () => {});
    const { ids } = await read(t, kafka.plain, 'address', events.length);
    assert.deepEqual(ids, idsOf(events));
  });

  await t.test('every flow arrives with SCRAM, although it was killed in between', async (t) => {
    const yaml = yamlFor('killed', kafka.secure, `tls: {ca: "${files.ca}"}, ${login}`);
    const events = await exportOver(t, yaml, 3_000, kafka.restart);
    const { ids } = await read(t, kafka.plain, 'killed', events.length);
    assert.deepEqual(ids, idsOf(events));
  });
});
