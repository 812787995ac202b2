import assert from 'node:assert/strict';
import * as http from 'node:http';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import { createTable } from '../core/table.ts';
import { createKubeClient } from './client.ts';
import { type KubeObject, kubernetesResources } from './resource.ts';
import { type Watch, type WatchState, watch, watchIntoTable } from './watch.ts';

type Handler = (url: URL, response: http.ServerResponse) => void;

/** A tiny API server. `list` and `follow` answer; `asked` is what was asked of it. */
async function apiServer(t: TestContext, handlers: { list: Handler; follow: Handler }) {
  const asked: string[] = [];
  const server = http.createServer((request, response) => {
    const url = new URL(request.url!, 'http://x');
    const watching = url.searchParams.get('watch') === 'true';
    asked.push(watching ? `watch ${url.searchParams.get('resourceVersion')}` : 'list');
    (watching ? handlers.follow : handlers.list)(url, response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const client = createKubeClient({ server: `http://127.0.0.1:${(server.address() as AddressInfo).port}` });
  t.after(() => {
    client.close();
    server.closeAllConnections();
    server.close();
  });
  return { client, asked };
}

const pod = (name: string, version: number, phase = ''): KubeObject & { phase: string } => ({
  metadata: { name, namespace: 'a', resourceVersion: String(version) },
  phase,
});
const listOf = (version: number, items: unknown[], token?: string) =>
  JSON.stringify({ metadata: { resourceVersion: String(version), continue: token }, items });
const event = (type: string, object: unknown) => `${JSON.stringify({ type, object })}\n`;

async function until(condition: () => boolean, what: string): Promise<void> {
  const deadlineMs = Date.now() + 5_000;
  while (!condition()) {
    if (Date.now() > deadlineMs) throw new Error(`not reached: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

function tableOf(t: TestContext, client: Parameters<typeof watchIntoTable>[0], onState?: (state: WatchState) => void) {
  const table = createTable<{ name: string; phase: string }>({ name: 'pods', key: (row) => row.name });
  const running: Watch = watchIntoTable<KubeObject & { phase: string }, { name: string; phase: string }>(
    client,
    kubernetesResources.pods,
    table,
    (object) => (object.phase === 'hidden' ? undefined : { name: object.metadata.name, phase: object.phase }),
    { onState },
  );
  t.after(() => running.stop());
  const text = () =>
    [...table.rows()]
      .map((row) => `${row.name}${row.phase}`)
      .sort()
      .join(' ');
  return { table, running, text };
}

test('watchIntoTable() lists page by page, then follows', async (t) => {
  let stream: http.ServerResponse | undefined;
  const { client, asked } = await apiServer(t, {
    list(url, response) {
      const second = url.searchParams.get('continue') === 'next';
      response.end(second ? listOf(5, [pod('b', 2)]) : listOf(5, [pod('a', 1)], 'next'));
    },
    follow(_, response) {
      stream = response;
      response.flushHeaders();
    },
  });
  const { table, text, running } = tableOf(t, client);
  await until(() => stream !== undefined && table.initialized, 'following');
  assert.deepEqual([asked, text()], [['list', 'list', 'watch 5'], 'a b']);
  // Events may come in any pieces, and several at once.
  const events = event('ADDED', pod('c', 6)) + event('MODIFIED', pod('a', 7, '!')) + event('DELETED', pod('b', 8));
  for (let i = 0; i < events.length; i += 37) stream!.write(events.slice(i, i + 37));
  await until(() => text() === 'a! c', 'the events');
  stream!.write(event('MODIFIED', pod('c', 9, 'hidden')));
  await until(() => text() === 'a!', 'an object that is not to be a row any more');
  assert.equal(running.state().connected, true);
});

test('a connection that ends is taken up where it was, bookmarks included, without a new list', async (t) => {
  let follows = 0;
  const { client, asked } = await apiServer(t, {
    list: (_, response) => response.end(listOf(5, [pod('a', 1)])),
    follow(_, response) {
      follows++;
      response.flushHeaders();
      if (follows === 1) response.end(event('ADDED', pod('b', 6)) + event('BOOKMARK', pod('', 40)));
      if (follows === 2) {
        response.write(event('ADDED', pod('c', 41)));
        setImmediate(() => response.destroy()); // cut, not ended
      }
    },
  });
  const { text } = tableOf(t, client);
  await until(() => follows >= 3, 'the third connection');
  assert.equal(text(), 'a b c');
  assert.deepEqual(asked.slice(0, 3), ['list', 'watch 5', 'watch 40']);
  assert.ok(!asked.slice(1).includes('list'));
});

test('a connection that is cut brings nothing back that had changed already', async (t) => {
  let follows = 0;
  const seen: string[] = [];
  const { client, asked } = await apiServer(t, {
    list: (_, response) => response.end(listOf(5, [])),
    follow(_, response) {
      follows++;
      response.flushHeaders();
      if (follows > 1) return;
      response.write(event('ADDED', pod('a', 6, '-open')) + event('MODIFIED', pod('a', 7, '-closed')));
      setTimeout(() => response.destroy(), 20);
    },
  });
  const { table } = tableOf(t, client);
  table.subscribe((set) => void seen.push(...set.changes.map((change) => `${change.after?.phase}`)));
  await until(() => follows === 2, 'the second connection');
  assert.deepEqual(
    [seen, asked],
    [
      ['-open', '-closed'],
      ['list', 'watch 5', 'watch 7'],
    ],
  );
});

test('an object that cannot be handled holds up no other', async (t) => {
  let follows = 0;
  const { client } = await apiServer(t, {
    list: (_, response) => response.end(listOf(5, [])),
    follow(url, response) {
      follows++;
      response.flushHeaders();
      if (url.searchParams.get('resourceVersion') === '5') response.write(event('ADDED', pod('bad', 6)));
      else response.write(event('ADDED', pod('good', 7)));
    },
  });
  const names: string[] = [];
  const running = watch(client, kubernetesResources.pods, {
    list() {},
    upsert(item) {
      if (item.metadata.name === 'bad') throw new Error('cannot be handled');
      names.push(item.metadata.name);
    },
    delete() {},
  });
  t.after(() => running.stop());
  await until(() => names.length > 0, 'the object after the bad one');
  assert.deepEqual([names, follows], [['good'], 2]);
});

test('410, as an answer or as an event, means list again; what went meanwhile goes', async (t) => {
  let lists = 0;
  let follows = 0;
  const { client } = await apiServer(t, {
    list(_, response) {
      lists++;
      response.end(listOf(lists * 10, lists === 1 ? [pod('a', 1), pod('b', 1)] : [pod('b', 1), pod(`c${lists}`, 2)]));
    },
    follow(_, response) {
      follows++;
      if (follows === 1) response.end(event('ERROR', { code: 410, reason: 'Expired', message: 'too old' }));
      else if (follows === 2) {
        response.statusCode = 410;
        response.end(JSON.stringify({ reason: 'Expired', message: 'too old' }));
      } else response.flushHeaders();
    },
  });
  const { text } = tableOf(t, client);
  await until(() => follows === 3, 'following again');
  assert.deepEqual([lists, text()], [3, 'b c3']);
});

test('a server that fails is tried again, and the state says why it is not followed', async (t) => {
  let broken = true;
  const states: WatchState[] = [];
  const { client } = await apiServer(t, {
    list(_, response) {
      if (!broken) return void response.end(listOf(5, [pod('a', 1)]));
      response.statusCode = 503;
      response.end('overloaded');
    },
    follow: (_, response) => response.flushHeaders(),
  });
  const { running, text, table } = tableOf(t, client, (state) => states.push(state));
  await until(() => states.length > 0, 'a state');
  assert.deepEqual([states[0]!.connected, states[0]!.error, table.initialized], [false, 'overloaded', false]);
  broken = false;
  await until(() => running.state().connected, 'following');
  assert.deepEqual([text(), running.state().error], ['a', undefined]);
});

test('rubbish in the stream is no end: it reconnects', async (t) => {
  let follows = 0;
  const { client } = await apiServer(t, {
    list: (_, response) => response.end(listOf(5, [])),
    follow(_, response) {
      follows++;
      response.flushHeaders();
      if (follows === 1) response.write('{"type": rubbish}\n');
      else response.write(event('ADDED', pod('a', 6)));
    },
  });
  const { text } = tableOf(t, client);
  await until(() => text() === 'a', 'the event after the rubbish');
});

test('stop() ends it at once and for good', async (t) => {
  const { client, asked } = await apiServer(t, {
    list: (_, response) => response.end(listOf(5, [])),
    follow: (_, response) => response.flushHeaders(),
  });
  const running = watch(client, kubernetesResources.pods, { list() {}, upsert() {}, delete() {} });
  await until(() => asked.length === 2, 'following');
  running.stop();
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(asked.length, 2);
});

test('watch() keeps what it has of an optional kind when the API server once says that there is no such kind', async (t) => {
  let lists = 0;
  const { client } = await apiServer(t, {
    list(_url, response) {
      if (++lists === 2) response.statusCode = 404;
      response.end(lists === 2 ? '{}' : listOf(5, [pod('a', 1)]));
    },
    follow(_url, response) {
      if (lists > 1) return;
      response.statusCode = 410;
      response.end('{}');
    },
  });
  const listed: number[] = [];
  const running = watch(
    client,
    kubernetesResources.pods,
    { list: (items) => void listed.push(items.length), upsert() {}, delete() {} },
    { optional: true },
  );
  t.after(() => running.stop());
  await until(() => lists === 3 && listed.length === 2, 'listed again');
  assert.deepEqual(listed, [1, 1]);
});

test('watch() takes a kind that was never there for an empty one at once', async (t) => {
  const { client } = await apiServer(t, {
    list(_url, response) {
      response.statusCode = 404;
      response.end('{}');
    },
    follow() {},
  });
  const listed: number[] = [];
  const handler = { list: (items: readonly unknown[]) => void listed.push(items.length), upsert() {}, delete() {} };
  const running = watch(client, kubernetesResources.pods, handler, { optional: true });
  t.after(() => running.stop());
  await until(() => listed.length > 0, 'told');
  assert.deepEqual(listed, [0]);
});
