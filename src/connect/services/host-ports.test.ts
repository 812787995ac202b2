import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { EndpointRow, HostPort, PodRow } from '../../core/rows.ts';
import { hostPortFrontends } from './host-ports.ts';

const endpoint = { ipv4: '10.244.0.5', ipv6: 'fd00:10::5', createdAtMs: 0 } as EndpointRow;
const keys = (...hostPorts: HostPort[]) =>
  hostPortFrontends({ key: 'shop/web', hostPorts } as unknown as PodRow, endpoint, ['192.0.2.1', '2001:db8::1'])
    .frontends.map((row) => `${row.key} ${row.backends[0]!.address}:${row.backends[0]!.port}`)
    .sort();
const port = { hostPort: 80, containerPort: 8080, protocol: 'TCP' } as const;

test('hostPortFrontends() are on every address of the node, in both families', () => {
  assert.deepEqual(keys(port), [
    'inside 0.0.0.0:80/TCP 10.244.0.5:8080',
    'inside [::]:80/TCP fd00:10::5:8080',
    'outside 192.0.2.1:80/TCP 10.244.0.5:8080',
    'outside [2001:db8::1]:80/TCP fd00:10::5:8080',
  ]);
});

test('hostPortFrontends() with an address are there alone, and only where it is the node\u2019s own', () => {
  assert.deepEqual(keys({ ...port, hostIp: '192.0.2.1' }), [
    'inside 192.0.2.1:80/TCP 10.244.0.5:8080',
    'outside 192.0.2.1:80/TCP 10.244.0.5:8080',
  ]);
  assert.deepEqual(keys({ ...port, hostIp: '8.8.8.8' }), []);
  assert.equal(keys({ ...port, hostIp: '127.0.0.1' }).length, 2);
});
