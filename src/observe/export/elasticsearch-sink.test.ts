import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { createElasticsearchSink, indexOf, readBulkAnswer } from './elasticsearch-sink.ts';
import { type ConfigOf, parseExportConfig } from './export-config.ts';
import { BatchRefused, ReceiverBusy } from './sink.ts';
import { events, httpReceiver } from './testdata/receivers.ts';

const context = { nodeName: 'node1', version: 'weir v0', run: '0123456789abcdef' };
const never = new AbortController().signal;

function configOf(url: string, more = ''): ConfigOf<'elasticsearch'> {
  const text = `exporters: [{name: e, type: elasticsearch, url: "${url}"${more}}]`;
  return parseExportConfig(text, 'test', context)[0] as ConfigOf<'elasticsearch'>;
}

test('a bulk request creates each event under its id, with the secret of the file', async (t) => {
  const { url, requests } = await httpReceiver(t, (_, response) => response.end('{"errors":false}'));
  const token = `/tmp/weir-test-token-${process.pid}`;
  writeFileSync(token, 'c2VjcmV0\n');
  const sink = createElasticsearchSink(configOf(url, `, index: "weir-{date}", auth: {tokenFile: ${token}}`));
  assert.deepEqual(await sink.send(events(2), never), { again: [], refused: 0 });
  await sink.close();
  const [request] = requests;
  assert.equal(request!.path, '/_bulk');
  assert.equal(request!.headers.authorization, 'ApiKey c2VjcmV0');
  assert.deepEqual(request!.text.split('\n'), [
    '{"create":{"_index":"weir-2026.01.01","_id":"id-1"}}',
    '{"n":1}',
    '{"create":{"_index":"weir-2026.01.01","_id":"id-2"}}',
    '{"n":2}',
    '',
  ]);
});

test('of a bulk answer only what had no room comes again; what is there already has arrived', () => {
  const batch = events(5);
  const item = (status: number, reason = '') => ({ create: { status, error: { type: 'x', reason } } });
  const answer = { errors: true, items: [item(201), item(409), item(429), item(400, 'bad field'), item(503)] };
  const { again, refused, why } = readBulkAnswer(JSON.stringify(answer), batch);
  assert.deepEqual(
    again.map((each) => each.id),
    ['id-3', 'id-5'],
  );
  assert.deepEqual([refused, why], [1, '429 x: ']);
});

test('an index that may not be written is no reason to give events up', () => {
  const items = [{ create: { status: 403, error: { type: 'cluster_block_exception', reason: 'read-only' } } }];
  assert.equal(readBulkAnswer(JSON.stringify({ errors: true, items }), events(1)).again.length, 1);
});

test('answers without sense lose nothing', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.json(),
        fc.string(),
        fc.record({ errors: fc.jsonValue(), items: fc.array(fc.jsonValue()) }).map((value) => JSON.stringify(value)),
      ),
      (text) => {
        const batch = events(3);
        let arrived = 0;
        try {
          const { again, refused } = readBulkAnswer(text, batch);
          arrived = batch.length - again.length - refused;
        } catch {
          return;
        }
        // Only the answer's own word makes an event arrive.
        if (arrived > 0) assert.match(text, /"errors":\s*false|"status":\s*(200|201|409)/);
      },
    ),
    { numRuns: 300 },
  );
});

test('a busy receiver says when to come again; a batch it calls bad is told apart from that', async (t) => {
  let status = 429;
  const { url } = await httpReceiver(t, (_, response) => response.writeHead(status, { 'retry-after': '7' }).end('x'));
  const sink = createElasticsearchSink(configOf(url));
  await assert.rejects(
    sink.send(events(1), never),
    (error) => error instanceof ReceiverBusy && error.retryAfterMs === 7_000,
  );
  status = 413;
  await assert.rejects(sink.send(events(1), never), BatchRefused);
  status = 401;
  await assert.rejects(sink.send(events(1), never), ReceiverBusy);
});

test('half an answer, none at all, and nobody there: errors, not events that arrived', async (t) => {
  const { url } = await httpReceiver(t, ({ text }, response) => {
    if (text.includes('"n":1}')) {
      response.writeHead(200, { 'content-length': '100' });
      response.write('{"errors":fal');
      setTimeout(() => response.destroy(), 10);
    }
  });
  const sink = createElasticsearchSink(configOf(url));
  await assert.rejects(sink.send(events(1), never));
  await assert.rejects(sink.send(events(1, 2), AbortSignal.timeout(50)));
  await assert.rejects(createElasticsearchSink(configOf('http://127.0.0.1:1')).send(events(1), never), /ECONNREFUSED/);
  await sink.close();
});

test('indexOf() puts the event’s day in', () => {
  assert.equal(indexOf('a-{date}-{date}', 0), 'a-1970.01.01-1970.01.01');
});
