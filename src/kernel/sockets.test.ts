import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseSockets } from './sockets.ts';

const head = '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode';

test('parseSockets() reads who listens and who is connected, in both families', () => {
  const text = [
    head,
    '   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1',
    '   1: 0100007F:1F90 0200000A:D431 01 00000000:00000000 00:00000000 00000000     0        0 2 1',
    '   2: 0100007F:1F90 0200000A:D432 06 00000000:00000000 00:00000000 00000000     0        0 3 1',
    '   3: 0000000000000000FFFF00000100007F:0050 0000000000000000FFFF00000200000A:D433 01 00000000:00000000 00:0 0 0 0 4',
    '   4: B80D0120000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:0 0 0 0 5',
    '',
  ].join('\n');
  const row = { protocol: 'tcp', peerPort: 0 };
  assert.deepEqual(parseSockets(text, 'tcp'), [
    { ...row, state: 'listening', address: '0.0.0.0', port: 22, peer: '0.0.0.0' },
    { ...row, state: 'connected', address: '127.0.0.1', port: 8080, peer: '10.0.0.2', peerPort: 0xd431 },
    { ...row, state: 'connected', address: '127.0.0.1', port: 80, peer: '10.0.0.2', peerPort: 0xd433 },
    { ...row, state: 'listening', address: '2001:db8::1', port: 80, peer: '::' },
  ]);
});

test('parseSockets() takes UDP sockets without a peer as listening', () => {
  const text = `${head}\n  1: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 1\n`;
  assert.deepEqual(
    parseSockets(text, 'udp').map(({ state, port }) => [state, port]),
    [['listening', 53]],
  );
});
