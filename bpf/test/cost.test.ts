// What the datapath may cost, as far as no clock is needed to say it: the verifier's work for each program, and that no
// event ever wakes the reader of the ring.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import koffi from 'koffi';
import { podMac } from '../../src/connect/endpoints/link-addresses.ts';
import { type Bed, createBed } from '../../test/bed/bed.ts';
import { tcpPacket } from '../../test/bed/packet.ts';
import { fromPod } from './probe.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';

/** The kernel refuses a program at a million. What is verified is also what a pod's first packet may run through. */
const verifiedLimits: Record<string, number> = {
  pod: 60_000,
  device: 60_000,
  node: 60_000,
  sweep: 5_000,
  balance_host: 60_000,
};

describe('cost of the datapath', { skip }, () => {
  let bed: Bed;
  before(async () => {
    bed = await createBed({
      pods: [
        { name: 'a', node: 0 },
        { name: 'b', node: 0 },
      ],
    });
  });
  after(() => bed?.close());

  test('the verifier accepts each program within its limit', () => {
    const programs = bed.nodes[0]!.datapath!.programs();
    assert.deepEqual(programs.map((each) => each.name).sort(), Object.keys(verifiedLimits).sort());
    for (const { name, verifiedInstructions } of programs) {
      assert.ok(verifiedInstructions < verifiedLimits[name]!, `${name}: ${verifiedInstructions}`);
    }
  });

  test('no event wakes the reader', async () => {
    const library = koffi.load('libc.so.6');
    const epollCreate = library.func('int epoll_create1(int flags)');
    const epollControl = library.func('int epoll_ctl(int epfd, int op, int fd, void *event)');
    const epollWait = library.func('int epoll_wait(int epfd, void *events, int maxevents, int timeout)');
    const close = library.func('int close(int fd)');
    const [a, b] = [bed.pod('a'), bed.pod('b')];
    let port = 1000;
    const makeEvents = (count: number) => {
      let events = 0;
      for (let i = 0; i < count; i++) {
        const packet = tcpPacket({
          from: a,
          to: b,
          sourceMac: podMac(a.ifindex),
          sourcePort: ++port,
          destinationPort: 80,
          flags: ['SYN'],
        });
        events += fromPod(bed, a, packet).events.length;
      }
      return events;
    };
    makeEvents(1); // Read at once: the ring is empty when the watch begins.
    const epoll = epollCreate(0) as number;
    const registration = Buffer.alloc(12);
    registration.writeUInt32LE(0x8000_0001, 0); // EPOLLIN, edge-triggered: only a wake-up counts
    assert.equal(epollControl(epoll, 1, bed.nodes[0]!.datapath!.map('events').fd, registration), 0);
    const woken = new Promise<number>((resolve, reject) => {
      epollWait.async(epoll, Buffer.alloc(12), 1, 400, (error: Error | null, result: number) =>
        error ? reject(error) : resolve(result),
      );
    });
    assert.equal(makeEvents(500), 500);
    assert.equal(await woken, 0);
    close(epoll);
  });
});
