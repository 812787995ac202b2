import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { WhyView } from '../agent/services-view.ts';
import { parseEnd, whyText } from './service-why.ts';

test('parseEnd() reads both families, with and without port and protocol', () => {
  assert.deepEqual(parseEnd('10.0.0.1'), { address: '10.0.0.1' });
  assert.deepEqual(parseEnd('10.0.0.1:53/udp'), { address: '10.0.0.1', port: '53', protocol: 'udp' });
  assert.deepEqual(parseEnd('[FD00::1]:80'), { address: 'fd00::1', port: '80' });
  assert.deepEqual(parseEnd('fd00::1'), { address: 'fd00::1' });
  for (const bad of ['', 'web:80', '10.0.0.0/8', '10.0.0.1:x', '[10.0.0.1'])
    assert.throws(() => parseEnd(bad), /is not an address/, bad);
});

test('whyText() says what was decided by what', () => {
  const backend = {
    address: '10.244.1.2',
    port: 8080,
    state: 'serving',
    where: 'remote',
    nodeName: 'n2',
    weight: 1,
  } as const;
  const base: WhyView = {
    node: 'n1',
    client: '198.51.100.9',
    clientPort: 40_000,
    address: '203.0.113.5',
    port: 443,
    protocol: 'TCP',
    seen: 'packet',
  };
  const frontend = { service: 'shop/web', kind: 'LoadBalancer', scope: 'outside', id: 3 };
  const say = (more: Partial<WhyView>) => whyText({ ...base, frontend, admitted: true, ...more }, false);
  assert.match(whyText(base, false), /is no frontend here/);
  assert.match(
    say({ reason: 'maglev', backend }),
    /10\.244\.1\.2:8080 \(n2\): by the Maglev table, from source port 40000 \(assumed\)/,
  );
  assert.match(say({ reason: 'affinity', backend }), /served this client before/);
  assert.match(say({ reason: 'known connection', backend }), /there already/);
  assert.match(say({ reason: 'random', candidates: [backend] }), /one of 10\.244\.1\.2:8080: each connection/);
  assert.match(say({ reason: 'none' }), /nobody serves it/);
  assert.match(say({ admitted: false }), /do not let 198\.51\.100\.9 in/);
  assert.match(say({ seen: 'elsewhere', elsewhere: 'n2' }), /on node n2/);
});
