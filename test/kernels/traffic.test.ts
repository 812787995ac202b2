// Real connections through the real hooks, by whatever means this kernel hangs them up: tcx, or clsact before 6.6.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';
import { denyIngress } from '../../bpf/test/policy-lines.ts';
import { withNetns } from '../../src/kernel/netns.ts';
import { type Bed, type BedPod, createBed } from '../bed/bed.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const port = 7001;
const connectMs = 4_000;

const server = `
const net = require('node:net');
net.createServer((socket) => socket.pipe(socket)).listen(${port}, '::', () => console.log('listening'));
`;
const client = `
const net = require('node:net');
const one = (address) => new Promise((resolve) => {
  const socket = net.connect(${port}, address, () => socket.write('hello'));
  socket.setTimeout(${connectMs}, () => { resolve('silent'); socket.destroy(); });
  socket.on('data', (data) => { resolve(String(data)); socket.destroy(); });
  socket.on('error', (error) => resolve(error.code));
});
Promise.all(process.argv.slice(1).map(one)).then((answers) => console.log(answers.join()));
`;

/** A process is forked in the namespace that its thread is in. */
const inPod = <T>(pod: BedPod, work: () => T) => withNetns(`/run/netns/${pod.netns}`, work);

describe('connections between pods', { skip }, () => {
  let bed: Bed;
  const servers: ChildProcess[] = [];

  before(async () => {
    bed = await createBed({
      pods: [
        { name: 'a', node: 0 },
        { name: 'b', node: 0 },
        { name: 'c', node: 1 },
      ],
    });
    for (const name of ['b', 'c']) {
      const child = inPod(bed.pod(name), () =>
        spawn(process.execPath, ['-e', server], { stdio: ['ignore', 'pipe', 'inherit'] }),
      );
      servers.push(child);
      await once(child.stdout!, 'data');
    }
  });
  after(() => {
    for (const child of servers) child.kill();
    bed?.close();
  });

  const ask = (from: BedPod, to: BedPod) =>
    inPod(from, () =>
      spawnSync(process.execPath, ['-e', client, to.ipv4, to.ipv6], { encoding: 'utf8' }),
    ).stdout.trim();

  test('reach a pod of the node and one of another node, in both families', () => {
    assert.equal(ask(bed.pod('a'), bed.pod('b')), 'hello,hello');
    assert.equal(ask(bed.pod('a'), bed.pod('c')), 'hello,hello');
  });

  test('are silent where policy denies', () => {
    bed.setPolicies([denyIngress('closed', 'b')]);
    assert.equal(ask(bed.pod('a'), bed.pod('b')), 'silent,silent');
    assert.equal(ask(bed.pod('a'), bed.pod('c')), 'hello,hello');
  });
});
