import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Counter, Registry } from 'prom-client';
import { parseListen } from './parse-listen.ts';
import { serveMetrics } from './serve-metrics.ts';

test('metrics are served in the format that is asked for, exemplars only with OpenMetrics', async (t) => {
  const registry = new Registry();
  registry.setContentType(Registry.OPENMETRICS_CONTENT_TYPE as never);
  const counter = new Counter({
    name: 'a_total',
    help: 'A.',
    registers: [registry],
    labelNames: ['x'],
    enableExemplars: true,
  });
  counter.inc({ labels: { x: '1' }, value: 2, exemplarLabels: { flow: 'u' } as never });
  const server = await serveMetrics({
    listen: { host: '127.0.0.1', port: 0 },
    registry,
    onError: (error) => assert.fail(String(error)),
  });
  t.after(() => server.close());
  const get = (path: string, accept = '*/*', method = 'GET') =>
    fetch(`http://${server.address}${path}`, { method, headers: { accept } });
  const both = await Promise.all([get('/metrics'), get('/metrics', 'application/openmetrics-text;version=1.0.0')]);
  const [plain, open] = await Promise.all(both.map((each) => each.text()));
  assert.match(both[0].headers.get('content-type')!, /^text\/plain/);
  assert.match(plain!, /^a_total\{x="1"\} 2$/m);
  assert.match(both[1].headers.get('content-type')!, /^application\/openmetrics-text/);
  assert.match(open!, /^a_total\{x="1"\} 2 # \{flow="u"\} 2 [\d.]+$/m);
  assert.match(open!, /# EOF\n$/);
  assert.equal((await get('/')).status, 404);
  assert.equal((await get('/metrics', '*/*', 'POST')).status, 405);
  assert.equal(await (await get('/healthz')).text(), 'ok\n');
});

test('where to listen is read as host and port', () => {
  assert.deepEqual(parseListen('[::]:9965'), { host: '::', port: 9965 });
  assert.deepEqual(parseListen(':9965'), { host: '::', port: 9965 });
  assert.deepEqual(parseListen('127.0.0.1:1'), { host: '127.0.0.1', port: 1 });
  for (const wrong of ['', '9965', 'a:b', '[::]:99999', '::1:80']) assert.equal(parseListen(wrong), undefined);
});
