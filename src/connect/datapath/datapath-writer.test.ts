import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { BpfMap } from '../../kernel/bpf-map.ts';
import { KernelError } from '../../kernel/kernel-error.ts';
import type { MappedArray } from '../../kernel/mmap-array.ts';
import { addressBytes, epochSlot } from './address-keys.ts';
import { createDatapathWriter, type DatapathDelta } from './datapath-writer.ts';

/** Maps in memory, and the order in which they were written. */
function fakeMaps() {
  const writes: string[] = [];
  const room = { ipcache: 100 };
  const map = (name: string): BpfMap => {
    const held = new Map<string, Uint8Array>();
    const text = (key: Uint8Array) => Buffer.from(key).toString('hex');
    return {
      name,
      maxEntries: 100,
      entries: () => [],
      lookup: (key: Uint8Array) => held.get(text(key)),
      update(key: Uint8Array, value: Uint8Array) {
        if (name === 'ipcache' && held.size >= room.ipcache)
          throw new KernelError('bpf', 7, 'MAP_UPDATE_ELEM', { mapFull: true });
        held.set(text(key), value);
        writes.push(name);
      },
      delete: (key: Uint8Array) => held.delete(text(key)),
    } as unknown as BpfMap;
  };
  const epochs = { u32: new Uint32Array(65_536), strideBytes: 4 } as unknown as MappedArray;
  const maps = {
    ipcache: map('ipcache'),
    ipcachePrefix: map('prefix'),
    policyPeer: map('peer'),
    policyPorts: map('port'),
    endpoints: map('endpoints'),
    epochs,
  };
  return { maps, writes, room, epochOf: (address: string) => epochs.u32[epochSlot(addressBytes(address))]! };
}

const delta = (address: string): DatapathDelta => ({
  ports: {
    upsert: [
      { ruleset: 1, protocol: 0, prefixBits: 0, port: 0, allow: true, stagedAllow: true, cookie: 0, proxyPort: 0 },
    ],
    delete: [],
  },
  peers: { upsert: [{ subject: 1, peer: 0, direction: 'ingress', ruleset: 1 }], close: [], delete: [] },
  ipcache: { upsert: [{ address, class: 1, identity: 300, ifindex: 7, flags: 0, endpointId: 1 }], delete: [] },
  subjects: [],
});

test('apply() writes ports, then who points to them, then addresses, and raises their epochs', () => {
  const { maps, writes, epochOf } = fakeMaps();
  createDatapathWriter(maps).apply(delta('10.0.0.1'));
  assert.deepEqual(writes, ['port', 'peer', 'ipcache']);
  assert.deepEqual([epochOf('10.0.0.1'), epochOf('10.0.0.2')], [1, 0]);
});

test('retry() raises the epochs again when a row that did not fit came late, and not otherwise', () => {
  const { maps, room, epochOf } = fakeMaps();
  const writer = createDatapathWriter(maps);
  room.ipcache = 0;
  writer.apply(delta('10.0.0.1'));
  assert.equal(epochOf('10.0.0.1'), 1);
  assert.equal(writer.retry(), true);
  assert.equal(epochOf('10.0.0.1'), 1, 'nothing has changed yet');
  room.ipcache = 100;
  assert.equal(writer.retry(), false);
  assert.equal(epochOf('10.0.0.1'), 2);
  assert.equal(writer.retry(), false);
  assert.equal(epochOf('10.0.0.1'), 2);
});

test('policyProblem() tells of rows of any map that cannot be written', () => {
  const { maps, room } = fakeMaps();
  const writer = createDatapathWriter(maps);
  room.ipcache = 0;
  writer.apply(delta('10.0.0.1'));
  assert.equal(writer.policyProblem(), '1 rows of map ipcache cannot be written');
  room.ipcache = 100;
  writer.retry();
  assert.equal(writer.policyProblem(), undefined);
});
