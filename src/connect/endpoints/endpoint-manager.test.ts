import assert from 'node:assert/strict';
import { test } from 'node:test';
import { identityKey, identityLabels } from '../../core/identity.ts';
import type { EndpointRow, IdentityRow, PodRow } from '../../core/rows.ts';
import { createTable } from '../../core/table.ts';
import { createAddressPool } from '../ipam/address-pool.ts';
import { CniError, type CniRequest, cniCodes } from './cni-protocol.ts';
import { containerKey, createEndpointManager, type EndpointManagerOptions } from './endpoint-manager.ts';
import type { EndpointStore } from './endpoint-store.ts';
import { podMac } from './link-addresses.ts';
import type { PodInterfaces } from './pod-interface.ts';

/** Devices in memory. `fail` makes the next creation fail after the device was there. */
function fakeInterfaces() {
  let next = 100;
  const devices = new Map<number, { hostName: string; netns: string; note?: string; broken?: string }>();
  const fake = {
    devices,
    gone: new Set<string>(),
    fail: undefined as Error | undefined,
    /** Creations wait until this settles. */
    gate: Promise.resolve() as Promise<unknown>,
    pruned: undefined as ReadonlySet<number> | undefined,
  };
  const interfaces: PodInterfaces = {
    async create(spec, attach) {
      await fake.gate;
      if (fake.gone.has(spec.netns)) throw new CniError(cniCodes.unknownContainer, 'the network namespace is gone');
      const ifindex = next++;
      devices.set(ifindex, { hostName: spec.hostName, netns: spec.netns, note: spec.note });
      attach(ifindex);
      if (fake.fail !== undefined) {
        devices.delete(ifindex);
        throw fake.fail;
      }
      return { ifindex, hostName: spec.hostName, hostMac: 'x', mac: podMac(ifindex) };
    },
    check(spec) {
      const device = devices.get(spec.ifindex);
      if (device === undefined) return 'the host side of the veth is gone';
      if (fake.gone.has(spec.netns)) return 'the network namespace is gone';
      return device.broken;
    },
    async remove(ifindex) {
      devices.delete(ifindex);
    },
    prune(known) {
      fake.pruned = known;
      return [];
    },
    devices: () => [...devices].map(([ifindex, { hostName, note = '' }]) => ({ ifindex, hostName, note })),
    setNote: (ifindex, note) => void Object.assign(devices.get(ifindex)!, { note }),
    close() {},
  };
  return { ...fake, interfaces, fake };
}

function setUp(options: { cidr?: string; rest?: Partial<EndpointManagerOptions> } = {}) {
  const { fake, interfaces } = fakeInterfaces();
  const endpoints = createTable<EndpointRow, 'container' | 'pod'>({
    name: 'endpoints',
    key: (row) => row.id,
    indexes: {
      container: (row) => containerKey(row.containerId, row.interfaceName),
      pod: (row) => `${row.namespace}/${row.pod}`,
    },
  });
  const pods = createTable<PodRow>({ name: 'pods', key: (row) => row.key });
  const identities = createTable<IdentityRow, 'key'>({
    name: 'identities',
    key: (row) => row.id,
    indexes: { key: (row) => identityKey(row.labels) },
  });
  const saved = new Map<number, EndpointRow>();
  const store: EndpointStore = {
    load: () => ({ rows: [...saved.values()], setAside: [], lost: false }),
    save: (row) => void saved.set(row.id, row),
    remove: (id) => void saved.delete(id),
  };
  const clock = { ms: 0 };
  const pool = createAddressPool(options.cidr ?? '10.0.0.0/29', { nowMs: () => clock.ms, restMs: 1000 });
  const log: string[] = [];
  const manager = createEndpointManager({
    endpoints,
    pods,
    identities,
    interfaces,
    store,
    pools: () => [pool],
    attach: (ifindex) => void log.push(`attach ${ifindex}`),
    detach: (ifindex) => void log.push(`detach ${ifindex}`),
    kernelEndpoint: () => undefined,
    settle: () => void log.push('settle'),
    published: async () => void log.push('published'),
    mtu: () => 1500,
    podWaitMs: 20,
    identityWaitMs: 20,
    nowMs: () => clock.ms,
    ...options.rest,
  });
  manager.restore();
  const pod = (name: string, labels: Record<string, string> = { app: name }): PodRow => ({
    key: `shop/${name}`,
    namespace: 'shop',
    name,
    uid: `uid-${name}`,
    labels,
    serviceAccount: 'default',
    namedPorts: [],
    addresses: [],
    workload: { kind: 'Pod', name },
  });
  const know = (name: string, identity?: number, labels?: Record<string, string>) => {
    const row = pod(name, labels);
    pods.upsert(row);
    if (identity !== undefined) identities.upsert({ id: identity, labels: identityLabels(row) });
    return row;
  };
  return { manager, endpoints, pods, identities, saved, store, pool, clock, log, fake, know, pod };
}

const request = (command: CniRequest['command'], name: string, more: Partial<CniRequest> = {}): CniRequest => ({
  command,
  config: { cniVersion: '1.1.0', name: 'weir', type: 'weir-cni' },
  containerId: `c-${name}`,
  ifname: 'eth0',
  netns: `/n/${name}`,
  pod: { namespace: 'shop', name, uid: `uid-${name}` },
  ...more,
});

const refusal = (code: number) => (error: unknown) => error instanceof CniError && error.code === code;

test('ADD makes the interface, attaches, saves and settles before it answers', async () => {
  const { manager, endpoints, saved, log, know } = setUp();
  know('web', 300);
  const result = await manager.handle(request('ADD', 'web'));
  assert.equal(result?.ips?.[0]?.address, '10.0.0.1/32');
  const row = endpoints.by('pod', 'shop/web')[0]!;
  assert.deepEqual([row.state, row.identity, row.ifindex], ['ready', 300, 100]);
  assert.deepEqual(saved.get(row.id), row);
  assert.deepEqual(log, ['attach 100', 'settle', 'published']);
});

test('ADD answers when the other nodes can know the pod; a GC meanwhile leaves it', async () => {
  const publishing = Promise.withResolvers<void>();
  const asked = Promise.withResolvers<void>();
  const published = () => {
    asked.resolve();
    return publishing.promise;
  };
  const { manager, endpoints, know } = setUp({ rest: { published } });
  know('web', 300);
  let answered = false;
  const added = manager.handle(request('ADD', 'web')).then(() => {
    answered = true;
  });
  await asked.promise;
  const config = { ...request('GC', 'x').config, 'cni.dev/valid-attachments': [] };
  await manager.handle(request('GC', 'x', { config }));
  assert.equal(answered, false);
  assert.equal(endpoints.by('pod', 'shop/web')[0]!.state, 'ready');
  publishing.resolve();
  await added;
  assert.equal(endpoints.size, 1);
});

test('two ADDs of one container give one endpoint and the same answer', async () => {
  const { manager, endpoints, pool, know } = setUp();
  know('web', 300);
  const [first, second] = await Promise.all([
    manager.handle(request('ADD', 'web')),
    manager.handle(request('ADD', 'web')),
  ]);
  assert.deepEqual(first, second);
  assert.deepEqual([endpoints.size, pool.usage().used], [1, 1]);
});

test('ADD of a container that was made anew in another namespace replaces the old endpoint', async () => {
  const { manager, endpoints, fake, know } = setUp();
  know('web', 300);
  await manager.handle(request('ADD', 'web'));
  await manager.handle(request('ADD', 'web', { netns: '/n/other' }));
  assert.deepEqual(
    [...endpoints.rows()].map((row) => row.netns),
    ['/n/other'],
  );
  assert.equal(fake.devices.size, 1);
});

test('ADD while the identity is missing waits for it; it never gives a pod somebody else’s', async () => {
  const { manager, endpoints, identities, know, pod } = setUp({ rest: { identityWaitMs: 5000 } });
  know('web');
  const answer = manager.handle(request('ADD', 'web'));
  identities.upsert({ id: 400, labels: ['k8s:app=other'] });
  identities.upsert({ id: 301, labels: identityLabels(pod('web')) });
  await answer;
  assert.equal([...endpoints.rows()][0]!.identity, 301);
});

test('ADD without an identity in time says try again and leaves nothing behind', async () => {
  const { manager, endpoints, saved, pool, fake, know } = setUp();
  know('web');
  await assert.rejects(manager.handle(request('ADD', 'web')), refusal(cniCodes.tryAgain));
  assert.deepEqual([endpoints.size, saved.size, pool.usage().used], [0, 0, 0]);
  assert.equal(fake.devices.size, 0, 'the half-made device is removed');
});

test('ADD of a pod that the API has not shown yet says try again', async () => {
  const { manager, pool, know } = setUp();
  know('web', 300);
  await assert.rejects(manager.handle(request('ADD', 'stranger')), refusal(cniCodes.tryAgain));
  const older = request('ADD', 'web', { pod: { namespace: 'shop', name: 'web', uid: 'older' } });
  await assert.rejects(manager.handle(older), refusal(cniCodes.tryAgain));
  assert.equal(pool.usage().used, 0);
});

test('ADD into a namespace that is gone, or a kernel that refuses, is undone', async () => {
  const { manager, endpoints, saved, pool, fake, know } = setUp();
  know('web', 300);
  fake.gone.add('/n/web');
  await assert.rejects(manager.handle(request('ADD', 'web')), refusal(cniCodes.unknownContainer));
  fake.gone.clear();
  fake.fail = new Error('the kernel said no');
  await assert.rejects(manager.handle(request('ADD', 'web')), /said no/);
  assert.deepEqual([endpoints.size, saved.size, pool.usage().used, fake.devices.size], [0, 0, 0, 0]);
});

test('ADD when the block is used up says so, and works again when an address has rested', async () => {
  const { manager, pool, clock, know } = setUp({ cidr: '10.0.0.0/30' });
  for (const [i, name] of ['a', 'b', 'c'].entries()) know(name, 300 + i);
  await manager.handle(request('ADD', 'a'));
  await manager.handle(request('ADD', 'b'));
  await assert.rejects(manager.handle(request('ADD', 'c')), refusal(cniCodes.addressesExhausted));
  await manager.handle(request('DEL', 'a'));
  await assert.rejects(manager.handle(request('ADD', 'c')), refusal(cniCodes.addressesExhausted));
  clock.ms = 1000;
  assert.equal((await manager.handle(request('ADD', 'c')))?.ips?.[0]?.address, '10.0.0.1/32');
  assert.equal(pool.usage().used, 2);
});

test('DEL frees everything, and succeeds for what is unknown', async () => {
  const { manager, endpoints, saved, pool, fake, log, know } = setUp();
  know('web', 300);
  await manager.handle(request('ADD', 'web'));
  await manager.handle(request('DEL', 'web', { netns: '' }));
  await manager.handle(request('DEL', 'web', { netns: '' }));
  await manager.handle(request('DEL', 'never-seen'));
  assert.deepEqual([endpoints.size, saved.size, pool.usage().used, fake.devices.size], [0, 0, 0, 0]);
  assert.ok(log.includes('detach 100'));
});

test('DEL that comes while ADD works waits and then undoes it', async () => {
  const { manager, endpoints, fake, know } = setUp();
  know('web', 300);
  let open = (_: unknown) => {};
  fake.gate = new Promise((resolve) => (open = resolve));
  const add = manager.handle(request('ADD', 'web'));
  const del = manager.handle(request('DEL', 'web'));
  open(undefined);
  await add;
  await del;
  assert.deepEqual([endpoints.size, fake.devices.size], [0, 0]);
});

test('CHECK passes what is right and names what is not', async () => {
  const { manager, fake, know } = setUp();
  know('web', 300);
  const prevResult = await manager.handle(request('ADD', 'web'));
  const check = request('CHECK', 'web');
  await manager.handle({ ...check, config: { ...check.config, prevResult } });
  const other = { ...prevResult, ips: [{ address: '10.0.0.5/32' }] };
  await assert.rejects(
    manager.handle({ ...check, config: { ...check.config, prevResult: other } }),
    refusal(cniCodes.invalidConfig),
  );
  fake.devices.get(100)!.broken = 'address 10.0.0.1 is gone from eth0';
  await assert.rejects(manager.handle(check), refusal(cniCodes.kernel));
  await assert.rejects(manager.handle(request('CHECK', 'unknown')), refusal(cniCodes.unknownContainer));
});

test('GC removes what the runtime does not name any more', async () => {
  const { manager, endpoints, know } = setUp();
  for (const [i, name] of ['a', 'b', 'c'].entries()) {
    know(name, 300 + i);
    await manager.handle(request('ADD', name));
  }
  const config = {
    ...request('GC', 'x').config,
    'cni.dev/valid-attachments': [{ containerID: 'c-b', ifname: 'eth0' }],
  };
  await manager.handle(request('GC', 'x', { config }));
  assert.deepEqual(
    [...endpoints.rows()].map((row) => row.pod),
    ['b'],
  );
});

test('GC without a list removes nothing, and spares what is being made', async () => {
  const { manager, endpoints, know, fake } = setUp();
  for (const [i, name] of ['a', 'b'].entries()) know(name, 300 + i);
  await manager.handle(request('ADD', 'a'));
  await assert.rejects(manager.handle(request('GC', 'x')), { code: cniCodes.invalidConfig });
  assert.equal(endpoints.size, 1);
  let open = () => {};
  fake.gate = new Promise<void>((resolve) => {
    open = resolve;
  });
  const adding = manager.handle(request('ADD', 'b'));
  await new Promise(setImmediate);
  const none = { ...request('GC', 'x').config, 'cni.dev/valid-attachments': null };
  const collecting = manager.handle(request('GC', 'x', { config: none }));
  open();
  await Promise.all([adding, collecting]);
  assert.deepEqual(
    [...endpoints.rows()].map((row) => row.pod),
    ['b'],
  );
});

test('a pod made anew under its old name does not give its labels to the old container', async () => {
  const { manager, endpoints, identities, know, pod, pods } = setUp();
  know('db', 300);
  await manager.handle(request('ADD', 'db', { pod: { namespace: 'shop', name: 'db', uid: 'uid-db' } }));
  const anew = { ...pod('db', { app: 'db', role: 'admin' }), uid: 'uid-2' };
  identities.upsert({ id: 310, labels: identityLabels(anew) });
  pods.upsert(anew);
  const row = [...endpoints.rows()][0]!;
  assert.deepEqual([row.identity, row.labels], [300, { app: 'db' }]);
});

test('labels that change move the pod to its new identity when that has a number, not before', async () => {
  const { manager, endpoints, identities, saved, know, pod, pods } = setUp();
  know('web', 300);
  await manager.handle(request('ADD', 'web'));
  const relabelled = pod('web', { app: 'web', tier: 'gold' });
  pods.upsert(relabelled);
  const row = () => [...endpoints.rows()][0]!;
  assert.deepEqual([row().identity, row().labels.tier], [300, 'gold']);
  identities.upsert({ id: 310, labels: identityLabels(relabelled) });
  assert.equal(row().identity, 310);
  assert.equal(saved.get(row().id)?.identity, 310);
});

test('restore() keeps pods whose device is there, forgets the others and reuses no number', async () => {
  const first = setUp();
  for (const [i, name] of ['a', 'b'].entries()) {
    first.know(name, 300 + i);
    await first.manager.handle(request('ADD', name));
  }
  const rows = [...first.saved.values()];
  const second = setUp();
  for (const row of rows) second.store.save(row);
  second.fake.devices.set(rows[0]!.ifindex, { hostName: 'weir1', netns: '/n/a' });
  const { restored, gone } = second.manager.restore();
  assert.deepEqual([restored, gone.map((row) => row.pod)], [1, ['b']]);
  assert.deepEqual([...second.saved.keys()], [rows[0]!.id]);
  assert.deepEqual(second.fake.pruned, new Set(rows.map((row) => row.ifindex)));
  second.pool.reserve(rows[0]!.ipv4!, containerKey(rows[0]!.containerId, 'eth0'));
  second.know('c', 302);
  await second.manager.handle(request('ADD', 'c'));
  assert.ok(!rows.some((row) => row.id === second.endpoints.by('pod', 'shop/c')[0]!.id));
});

/** As a file keeps it. */
const withoutGaps = (row: EndpointRow | undefined) => JSON.parse(JSON.stringify(row)) as EndpointRow;

/** An agent that finds the devices of `before`, and none of its files but `kept`. */
function afterLosing(
  before: ReturnType<typeof setUp>,
  options: { lost?: boolean; note?: (text: string) => string } = {},
) {
  const rows = [...before.saved.values()];
  const saved = new Map<number, EndpointRow>();
  const found = setUp({
    rest: {
      store: {
        load: () => ({
          rows: [],
          setAside: options.lost ? [] : rows.map(({ id }) => ({ id, file: `${id}.json.corrupt`, reason: 'half' })),
          lost: options.lost ?? false,
        }),
        save: (row) => void saved.set(row.id, row),
        remove: (id) => void saved.delete(id),
      },
      kernelEndpoint: (ifindex) => {
        const row = rows.find((each) => each.ifindex === ifindex);
        return row && { identity: row.identity, ipv4: row.ipv4, ipv6: row.ipv6 };
      },
    },
  });
  for (const [ifindex, device] of before.fake.devices)
    found.fake.devices.set(ifindex, { ...device, note: options.note?.(device.note ?? '') ?? device.note });
  return { ...found, saved, rows };
}

for (const lost of [false, true])
  test(`restore() makes an endpoint again whose ${lost ? 'folder' : 'file'} is lost`, async () => {
    const first = setUp();
    first.know('web', 300);
    await first.manager.handle(request('ADD', 'web'));
    const { manager, rows, endpoints, saved, fake, know } = afterLosing(first, { lost });
    const { rebuilt, unknown } = manager.restore();
    assert.deepEqual([rebuilt.length, unknown], [1, []]);
    const { workload, serviceAccount, ...known } = rows[0]!;
    assert.deepEqual(withoutGaps(endpoints.get(known.id)), { ...known, labels: {} });
    assert.deepEqual(fake.pruned, new Set([known.ifindex]));
    know('web', 300);
    assert.deepEqual(withoutGaps(endpoints.get(known.id)), rows[0]);
    assert.deepEqual([...saved.values()], [...endpoints.rows()]);
    await manager.handle(request('DEL', 'web'));
    assert.equal(endpoints.size, 0);
  });

test('restore() names a pod that its note does not when the API tells of it', async () => {
  const first = setUp();
  first.know('web', 300);
  await first.manager.handle(request('ADD', 'web'));
  const { manager, endpoints, saved, know, rows } = afterLosing(first, {
    note: (text) => text.split(' ').slice(0, 5).join(' '),
  });
  manager.restore();
  assert.deepEqual(
    [...endpoints.rows()].map((row) => row.pod),
    [''],
  );
  know('other', 310);
  know('web', 300);
  assert.deepEqual([...endpoints.rows()].map(withoutGaps), rows);
  assert.deepEqual([...saved.values()].map(withoutGaps), rows);
});

test('restore() makes nothing of a device that does not say whose it is, or is not as it was', async () => {
  const first = setUp();
  first.know('web', 300);
  await first.manager.handle(request('ADD', 'web'));
  const without = afterLosing(first, { note: () => '' });
  assert.match(without.manager.restore().unknown[0]!.why, /no note/);
  assert.deepEqual(without.fake.pruned, new Set());
  assert.equal(without.endpoints.size, 0);
  const broken = afterLosing(first);
  for (const device of broken.fake.devices.values()) device.broken = 'address 10.0.0.1 is gone from eth0';
  assert.match(broken.manager.restore().unknown[0]!.why, /10\.0\.0\.1 is gone/);
  assert.equal(broken.endpoints.size, 0);
});

test('restore() notes at devices of an earlier version whose they are', async () => {
  const first = setUp();
  first.know('web', 300);
  await first.manager.handle(request('ADD', 'web'));
  const row = [...first.saved.values()][0]!;
  const second = setUp();
  second.store.save(row);
  second.fake.devices.set(row.ifindex, { hostName: 'weir1', netns: '/n/web' });
  second.manager.restore();
  assert.equal(second.fake.devices.get(row.ifindex)?.note, first.fake.devices.get(row.ifindex)?.note);
});

test('remove() does a deletion that was written down, and says whether there was anything', async () => {
  const { manager, know } = setUp();
  know('web', 300);
  await manager.handle(request('ADD', 'web'));
  assert.equal(await manager.remove('c-web', 'eth0'), true);
  assert.equal(await manager.remove('c-web', 'eth0'), false);
});
