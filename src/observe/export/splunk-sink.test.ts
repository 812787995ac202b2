// Against a double of the HTTP Event Collector that is as strict as the real one: token, channel, envelope, acknowledgement.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { type ConfigOf, parseExportConfig } from './export-config.ts';
import { createSplunkSink } from './splunk-sink.ts';
import { events, httpReceiver } from './testdata/receivers.ts';

const context = { nodeName: 'node1', version: 'weir v0', run: '0123456789abcdef' };
const never = new AbortController().signal;
const token = '11111111-2222-3333-4444-555555555555';
const allowed = ['time', 'host', 'source', 'sourcetype', 'index', 'event', 'fields'];

/** A collector. `indexed` is what its indexers have; acknowledged ids are asked for once, as by the real one. */
async function collector(t: TestContext, options: { acknowledge: boolean; index?: boolean }) {
  const indexed: Record<string, unknown>[] = [];
  const waiting = new Map<number, Record<string, unknown>[]>();
  const state = { busy: 0, polls: 0, ...options };
  let nextAck = 0;
  const server = await httpReceiver(t, ({ path, headers, text }, response) => {
    const answer = (status: number, body: object) => response.writeHead(status).end(JSON.stringify(body));
    if (headers.authorization !== `Splunk ${token}`) return answer(403, { text: 'Invalid token', code: 4 });
    const channel = headers['x-splunk-request-channel'];
    if (path.startsWith('/services/collector/ack')) {
      state.polls++;
      if (!path.includes(`channel=${channel}`)) return answer(400, { text: 'Data channel is missing', code: 10 });
      const { acks } = JSON.parse(text) as { acks: number[] };
      const told = acks.map((id) => {
        const known = options.index !== false && waiting.has(id);
        if (known) indexed.push(...waiting.get(id)!);
        waiting.delete(id);
        return [id, known];
      });
      return answer(200, { acks: Object.fromEntries(told) });
    }
    if (path !== '/services/collector/event') return answer(404, { text: 'not found', code: 404 });
    if (state.busy-- > 0) return answer(503, { text: 'Server is busy', code: 9 });
    if (options.acknowledge && !channel) return answer(400, { text: 'Data channel is missing', code: 10 });
    const batch: Record<string, unknown>[] = [];
    for (const line of text.split('\n')) {
      const bad = (code: number, words: string) =>
        answer(400, { text: words, code, 'invalid-event-number': batch.length });
      let event: Record<string, unknown>;
      try {
        event = JSON.parse(line) as Record<string, unknown>;
      } catch {
        return bad(6, 'Invalid data format');
      }
      if (event.event === undefined) return bad(12, 'Event field is required');
      if (event.event === '') return bad(13, 'Event field cannot be blank');
      if (Object.keys(event).some((name) => !allowed.includes(name)) || typeof event.time !== 'number')
        return bad(6, 'Invalid data format');
      batch.push(event);
    }
    if (!options.acknowledge) {
      indexed.push(...batch);
      return answer(200, { text: 'Success', code: 0 });
    }
    waiting.set(nextAck, batch);
    answer(200, { text: 'Success', code: 0, ackId: nextAck++ });
  });
  const tokenFile = `/tmp/weir-test-splunk-${process.pid}`;
  writeFileSync(tokenFile, `${token}\n`);
  const text = `exporters: [{name: s, type: splunk, url: "${server.url}", index: net, acknowledgeSeconds: 1, auth: {tokenFile: ${tokenFile}}}]`;
  const config = parseExportConfig(text, 'test', context)[0] as ConfigOf<'splunk'>;
  return { indexed, state, ...server, sink: createSplunkSink(config, 'node1', 10), config };
}

test('events arrive in envelopes with time, host and source type', async (t) => {
  const { sink, indexed } = await collector(t, { acknowledge: false });
  assert.deepEqual(await sink.send(events(2), never), { again: [], refused: 0 });
  assert.deepEqual(indexed[1], {
    host: 'node1',
    source: 'weir',
    index: 'net',
    time: Date.UTC(2026, 0, 1) / 1000 + 0.001,
    sourcetype: 'weir:flow',
    event: { n: 2 },
  });
});

test('a token that wants acknowledgement is asked until the indexers have the batch', async (t) => {
  const { sink, indexed, state } = await collector(t, { acknowledge: true });
  assert.deepEqual(await sink.send(events(3), never), { again: [], refused: 0 });
  assert.equal(indexed.length, 3);
  assert.ok(state.polls > 0);
});

test('a batch that is never acknowledged has not arrived', async (t) => {
  const { sink } = await collector(t, { acknowledge: true, index: false });
  await assert.rejects(sink.send(events(1), never), /did not acknowledge/);
});

test('one bad event is given up, the others are sent again', async (t) => {
  const { sink, indexed } = await collector(t, { acknowledge: false });
  const batch = events(3).with(1, { ...events(1, 2)[0]!, body: '""' });
  const { again, refused } = await sink.send(batch, never);
  assert.deepEqual([again.map((each) => each.id), refused], [['id-1', 'id-3'], 1]);
  assert.deepEqual(await sink.send(again, never), { again: [], refused: 0 });
  assert.equal(indexed.length, 2);
});

test('a busy collector and a wrong token give nothing up', async (t) => {
  const { sink, state, config } = await collector(t, { acknowledge: false });
  state.busy = 1;
  await assert.rejects(sink.send(events(1), never), /503/);
  writeFileSync(config.auth!.tokenFile!, 'wrong');
  await assert.rejects(
    sink.send(events(1), never),
    (error) => /403/.test(String(error)) && !/wrong/.test(String(error)),
  );
});
