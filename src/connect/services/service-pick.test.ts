import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type FrontendRow, protocolNumbers } from '../../core/rows.ts';
import { arrayWindows } from '../../kernel/array-windows.ts';
import { type LoadedObject, loadObject } from '../../kernel/bpf-object.ts';
import { datapathMaps } from '../../kernel/datapath.gen.ts';
import { mount, unmount } from '../../kernel/libc.ts';
import { typedMap } from '../../kernel/typed-map.ts';
import { addressBytes } from '../datapath/address-keys.ts';
import { frontendKey } from './derive-frontends.ts';
import { createServicePick, type PickQuestion } from './service-pick.ts';
import { createServiceTarget } from './service-target.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root: real maps';
const objects = fileURLToPath(new URL('../../../build/bpf', import.meta.url));

function world() {
  const folder = mkdtempSync('/tmp/weir-pick-');
  mount('bpf', folder, 'bpf', 0);
  const pinDir = join(folder, 'weir');
  const object: LoadedObject = loadObject({ path: join(objects, 'pick.bpf.o'), pinDir: join(pinDir, 'maps') });
  const pick = createServicePick({ objects, pinDir });
  const target = createServiceTarget({
    services: object.map('services'),
    sourceRanges: object.map('source_ranges'),
    // Not a map of this program: nothing here answers clients directly.
    directBackends: object.map('source_ranges'),
    slots: arrayWindows(object.map('lb_slots')),
    backends: arrayWindows(object.map('backends')),
    backendCounts: arrayWindows(object.map('backend_counts')),
  });
  return {
    object,
    pick,
    target,
    close() {
      pick.close();
      object.close();
      unmount(folder, 0);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

function frontend(row: Partial<FrontendRow>): FrontendRow {
  const full = {
    address: '203.0.113.5',
    port: 443,
    protocol: 'TCP' as const,
    scope: 'outside' as const,
    kind: 'LoadBalancer' as const,
    service: 'shop/web',
    portName: '',
    algorithm: 'maglev' as const,
    affinitySeconds: 0,
    onlyLocal: false,
    directReturn: false,
    backends: [1, 2, 3].map((host) => ({
      address: `10.0.0.${host}`,
      port: 8080,
      role: { state: 'serving' as const, where: 'remote' as const, weight: 1 },
    })),
    ...row,
  };
  return { key: frontendKey(full.scope, full.address, full.port, full.protocol), ...full };
}

const question: PickQuestion = {
  client: '198.51.100.9',
  clientPort: 40_000,
  address: '203.0.113.5',
  port: 443,
  protocol: protocolNumbers.TCP,
  scope: 'outside',
  nodePort: false,
};

test('createServicePick() answers by the steps of the datapath and changes nothing', { skip }, () => {
  const { object, pick, target, close } = world();
  try {
    assert.equal(pick.ask(question), undefined);
    target.update([frontend({})]);
    const first = pick.ask(question)!;
    assert.equal(first.reason, 'maglev');
    assert.equal(target.byId(first.service)!.row.service, 'shop/web');
    assert.deepEqual(pick.ask(question), first);
    const ports = Array.from({ length: 300 }, (_, i) => pick.ask({ ...question, clientPort: 1024 + i })!.backend!);
    assert.equal(new Set(ports).size, 3);

    // A connection that is known keeps its backend, whatever the table says.
    const other = ports.find((number) => number !== first.backend)!;
    const { value } = datapathMaps.backends;
    const generation = value.decode(
      object.map('backends').lookup(new Uint8Array(Uint32Array.of(other).buffer))!,
    ).generation;
    const flows = typedMap(object.map('service_flows'), datapathMaps.service_flows);
    const zero = datapathMaps.service_flows.value.decode(new Uint8Array(datapathMaps.service_flows.value.size));
    const key = {
      src: addressBytes(question.client),
      dst: addressBytes(question.address),
      sport: question.clientPort,
      dport: question.port,
      protocol: question.protocol,
    };
    flows.update(key, { ...zero, service: first.service, backend: other, generation });
    const known = pick.ask(question)!;
    assert.deepEqual([known.reason, known.backend], ['known connection', other]);
    flows.delete(key);

    // Affinity decides, and asking does not make it last longer.
    target.update([frontend({ affinitySeconds: 1000 })]);
    const affinity = typedMap(object.map('service_affinity'), datapathMaps.service_affinity);
    const alone = pick.ask(question)!;
    assert.equal(affinity.entries().length, 0);
    const owner = ports.find((number) => number !== alone.backend)!;
    const ownerRow = value.decode(object.map('backends').lookup(new Uint8Array(Uint32Array.of(owner).buffer))!);
    const seconds = Math.floor(Number(process.hrtime.bigint() / 1_000_000_000n));
    const row = { backend: owner, generation: ownerRow.generation, lastUsed: seconds - 500 };
    affinity.update({ client: addressBytes(question.client), service: alone.service, fromSocket: 0 }, row);
    assert.deepEqual([pick.ask(question)!.reason, pick.ask(question)!.backend], ['affinity', owner]);
    assert.equal(affinity.entries()[0]!.value.lastUsed, seconds - 500);
  } finally {
    close();
  }
});

test('createServicePick() says who is let in, what dice decide, and that nobody serves', { skip }, () => {
  const { pick, target, close } = world();
  try {
    target.update([frontend({ sourceRanges: ['198.51.100.0/24'] })]);
    assert.equal(pick.ask(question)!.admitted, true);
    assert.equal(pick.ask({ ...question, client: '192.0.2.1' })!.admitted, false);
    target.update([frontend({ backends: [] })]);
    assert.deepEqual([pick.ask(question)!.reason, pick.ask(question)!.backend], ['none', undefined]);
    const inside = frontend({
      scope: 'inside',
      address: '0.0.0.0',
      kind: 'NodePort',
      port: 30_080,
      algorithm: 'random',
    });
    target.update([inside]);
    const socket = { ...question, scope: 'inside', address: '10.77.0.1', port: 30_080, netns: 4711n } as const;
    assert.equal(pick.ask(socket), undefined);
    const dice = pick.ask({ ...socket, nodePort: true })!;
    assert.deepEqual([dice.reason, dice.backend], ['random', undefined]);
  } finally {
    close();
  }
});
