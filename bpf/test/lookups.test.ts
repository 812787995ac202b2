// How many map lookups a packet costs: the programs are compiled once more with a count around the helper.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { podMac } from '../../src/connect/endpoints/link-addresses.ts';
import { type Bed, type BedNode, createBed } from '../../test/bed/bed.ts';
import { tcpPacket } from '../../test/bed/packet.ts';
import { fromPod, fromWire, type ProbeResult } from './probe.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const root = fileURLToPath(new URL('../..', import.meta.url));

/** Objects as they are built, but with pod and host counting. */
function countingObjects(): string {
  const folder = mkdtempSync(join(tmpdir(), 'weir-lookups-'));
  const printed = execFileSync(process.execPath, [join(root, 'scripts/build-bpf.ts'), '--print-compiler']).toString();
  const [compiler = '', ...flags] = printed.trim().split('\n');
  for (const name of ['pod', 'host']) {
    const files = ['-c', join(root, `bpf/${name}.bpf.c`), '-o', join(folder, `${name}.bpf.o`)];
    execFileSync(compiler, [...flags, '-include', join(root, 'bpf/test/count-lookups.h'), ...files]);
  }
  copyFileSync(join(root, 'build/bpf/sweep.bpf.o'), join(folder, 'sweep.bpf.o'));
  return folder;
}

/** Since the last call. */
function takeCount(node: BedNode): { maps: number; epochs: number } {
  const map = node.datapath!.map('lookups');
  const take = (index: number) => {
    const key = new Uint8Array(Uint32Array.of(index).buffer);
    const count = new DataView(map.lookup(key)!.buffer).getBigUint64(0, true);
    map.update(key, new Uint8Array(8));
    return Number(count);
  };
  return { maps: take(0), epochs: take(1) };
}

describe('lookups of an established packet', { skip }, () => {
  let bed: Bed;
  let objects: string;
  before(async () => {
    objects = countingObjects();
    bed = await createBed({
      objects,
      pods: [
        { name: 'a', node: 0 },
        { name: 'b', node: 0 },
        { name: 'c', node: 1 },
      ],
    });
  });
  after(() => {
    bed?.close();
    if (objects !== undefined) rmSync(objects, { recursive: true });
  });

  for (const six of [false, true]) {
    for (const target of ['b', 'c']) {
      test(`IPv${six ? 6 : 4} to a pod of ${target === 'b' ? 'this' : 'another'} node: one, and the two epochs`, () => {
        const [a, to] = [bed.pod('a'), bed.pod(target)];
        const node = bed.nodes[0]!;
        const there = (flags: ('SYN' | 'ACK')[]) =>
          tcpPacket({
            from: a,
            to,
            six,
            sourceMac: podMac(a.ifindex),
            sourcePort: 4000,
            destinationPort: 80,
            flags,
          });
        const back = (flags: ('SYN' | 'ACK')[]) =>
          tcpPacket({
            from: to,
            to: a,
            six,
            ...(target === 'b' ? { sourceMac: podMac(to.ifindex) } : {}),
            sourcePort: 80,
            destinationPort: 4000,
            flags,
          });
        const reply = (packet: Uint8Array): ProbeResult =>
          target === 'b' ? fromPod(bed, to, packet) : fromWire(bed, 0, packet);
        takeCount(node); // of what the pods said of themselves when they came up
        fromPod(bed, a, there(['SYN']));
        const opening = takeCount(node).maps;
        assert.ok(opening > 3 && opening < 40, `the first packet: ${opening}`);
        assert.equal(reply(back(['SYN', 'ACK'])).outcome, 'sent on');
        fromPod(bed, a, there(['ACK']));
        for (const send of [() => fromPod(bed, a, there(['ACK'])), () => reply(back(['ACK']))]) {
          // Pods solicit routers now and then; whatever is counted with one packet is not with five.
          const counts = Array.from({ length: 5 }, () => {
            takeCount(node);
            assert.equal(send().outcome, 'sent on');
            return takeCount(node);
          });
          assert.deepEqual(counts.sort((x, y) => x.maps - y.maps)[0], { maps: 1, epochs: 2 });
        }
      });
    }
  }
});
