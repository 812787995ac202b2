import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { EndpointRow } from '../../core/rows.ts';
import { createEndpointStore } from './endpoint-store.ts';

const row: EndpointRow = {
  id: 7,
  containerId: 'c7',
  namespace: 'shop',
  pod: 'web',
  interfaceName: 'eth0',
  ifindex: 100_007,
  ipv4: '10.0.0.7',
  mac: '0a:57:00:01:86:a7',
  identity: 300,
  labels: { app: 'web' },
  namedPorts: [{ name: 'http', protocol: 'TCP', port: 80 }],
  state: 'ready',
  netns: '/run/netns/c7',
  createdAtMs: 5,
};

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'weir-endpoints-'));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

test('load() answers what save() wrote', (t) => {
  const path = folder(t);
  createEndpointStore(path).save(row);
  assert.deepEqual(createEndpointStore(path).load(), { rows: [row], setAside: [], lost: false });
  createEndpointStore(path).remove(7);
  createEndpointStore(path).remove(7);
  assert.deepEqual(readdirSync(path), []);
});

test('load() sets aside what it cannot understand and keeps the rest', (t) => {
  const path = folder(t);
  const store = createEndpointStore(path);
  store.save(row);
  writeFileSync(join(path, '1.json'), '{"id": 1, "contai');
  writeFileSync(join(path, '2.json'), '');
  writeFileSync(join(path, '3.json'), JSON.stringify({ ...row, id: 4 }));
  writeFileSync(join(path, '5.json'), JSON.stringify({ ...row, id: 5, ifindex: 'many' }));
  writeFileSync(join(path, '6.json'), Buffer.from([0, 255, 254]));
  writeFileSync(join(path, '8.json.tmp'), 'half');
  writeFileSync(join(path, 'README'), 'not ours');
  const { rows, setAside } = store.load();
  assert.deepEqual(rows, [row]);
  assert.equal(setAside.length, 5);
  assert.deepEqual(setAside.map(({ id }) => id).sort(), [1, 2, 3, 5, 6]);
  for (const { reason } of setAside) assert.doesNotMatch(reason, /\n/);
  assert.deepEqual(readdirSync(path).sort(), [
    '1.json.corrupt',
    '2.json.corrupt',
    '3.json.corrupt',
    '5.json.corrupt',
    '6.json.corrupt',
    '7.json',
    'README',
  ]);
  assert.deepEqual(store.load(), { rows: [row], setAside: [], lost: false });
});

test('load() says when the folder itself was lost', (t) => {
  const path = join(folder(t), 'endpoints');
  assert.equal(createEndpointStore(path).load().lost, true);
  assert.equal(createEndpointStore(path).load().lost, false);
});
