import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { test } from 'node:test';
import { createMap } from '../../kernel/bpf-map.ts';
import { datapathMaps } from '../../kernel/datapath.gen.ts';
import { createNamedNetns, deleteNamedNetns, netnsCookie, withNetns } from '../../kernel/netns.ts';
import { openSocketDiag } from '../../kernel/socket-diag.ts';
import { typedMap } from '../../kernel/typed-map.ts';
import { addressBytes } from '../datapath/address-keys.ts';
import { endSocketsOf } from './gone-backends.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root: network namespaces and maps';

/** Connects a UDP socket of each family to a port on loopback, and says what becomes of it. */
const client = `
const { createSocket } = require('node:dgram');
for (const [type, address] of [['udp4', '127.0.0.1'], ['udp6', '::1']]) {
  const socket = createSocket(type);
  socket.on('error', (error) => console.log(address, error.code));
  socket.connect(5353, address, () => console.log(address, 'connected'));
}`;

async function startClient(netns: string) {
  const child = spawn('nsenter', [`--net=${netns}`, process.execPath, '-e', client], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  let output = '';
  child.stdout.on('data', (part) => (output += part));
  const until = async (holds: (text: string) => boolean) => {
    for (const end = Date.now() + 10_000; !holds(output); await new Promise((resolve) => setTimeout(resolve, 5)))
      if (Date.now() > end) throw new Error(`it said: ${output}`);
  };
  await until((text) => text.split('connected').length === 3);
  return { child, until, output: () => output };
}

test('endSocketsOf() ends the sockets of a gone backend and no others, and forgets them', { skip }, async () => {
  const name = `weir-gone-${process.pid}`;
  const path = createNamedNetns(name);
  const { key: keys, value: values, type } = datapathMaps.socket_peers;
  const map = createMap({ name: 'peers', type, keySize: keys.size, valueSize: values.size, maxEntries: 64 });
  try {
    const { execFileSync } = await import('node:child_process');
    execFileSync('nsenter', [`--net=${path}`, 'ip', 'link', 'set', 'lo', 'up']);
    const cookie = withNetns(path, netnsCookie);
    const clients = await Promise.all([startClient(path), startClient(path)]);
    const diag = withNetns(path, () => openSocketDiag());
    const sockets = diag.connectedTo(17, 5353);
    assert.equal(sockets.length, 4);
    diag.close();
    const peers = typedMap(map, datapathMaps.socket_peers);
    const remember = (socket: (typeof sockets)[number], backend: number, generation = 9) =>
      peers.update(
        { cookie: socket.cookie, addr: socket.remote, port: 5353, protocol: 17 },
        { addr: addressBytes('10.96.0.10'), port: 53, service: 1, backend, generation, netns: cookie },
      );
    // Of the v4 sockets one was connected by the Service to the backend that went, one to an earlier holder of its number.
    const [v4, v4Other] = sockets.filter((each) => each.family === 4);
    const [v6] = sockets.filter((each) => each.family === 6);
    remember(v4!, 3);
    remember(v4Other!, 3, 8);
    remember(v6!, 4);
    const gone = [
      { number: 3, generation: 9, address: '127.0.0.1', port: 5353, protocol: 'UDP' },
      { number: 4, generation: 9, address: '::1', port: 5353, protocol: 'UDP' },
    ] as const;
    const end = () =>
      endSocketsOf({
        gone,
        peers: map,
        namespace: (wanted) => (wanted === cookie ? { cookie, open: () => openSync(path, 'r') } : undefined),
        keepTcp: () => false,
        closeFd: closeSync,
        onError: (error) => assert.fail(String(error)),
      });
    assert.deepEqual(end(), { ended: 2, forgotten: 2 });
    assert.deepEqual(end(), { ended: 0, forgotten: 0 });
    assert.equal(peers.entries().length, 1);
    const after = withNetns(path, () => openSocketDiag());
    const left = after.connectedTo(17, 5353).map((each) => each.cookie);
    after.close();
    assert.deepEqual(
      left.sort(),
      sockets
        .filter((each) => each !== v4 && each !== v6)
        .map((each) => each.cookie)
        .sort(),
    );
    // Who used them is told at once.
    const errors = () =>
      clients
        .map((each) => each.output())
        .join('')
        .match(/\S+ ECONNABORTED/g) ?? [];
    for (const each of clients) await each.until(() => errors().length === 2);
    assert.deepEqual([...errors()].sort(), ['127.0.0.1 ECONNABORTED', '::1 ECONNABORTED']);
    for (const each of clients) each.child.kill();
  } finally {
    map.close();
    deleteNamedNetns(name);
  }
});
