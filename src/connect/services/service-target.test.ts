import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { RowFailure } from '../../core/reconciler.ts';
import { type BackendRole, type FrontendBackend, type FrontendRow, protocolNumbers } from '../../core/rows.ts';
import { arrayWindows } from '../../kernel/array-windows.ts';
import { type BpfMap, createMap } from '../../kernel/bpf-map.ts';
import { BackendFlags, datapathMaps, ServiceFlags } from '../../kernel/datapath.gen.ts';
import type { ArrayMemory } from '../../kernel/mmap-array.ts';
import { addressText, blockText } from '../datapath/address-keys.ts';
import { frontendKey } from './derive-frontends.ts';
import { maglevSize, maglevTable } from './maglev.ts';
import { createServiceTarget, type ServiceTarget } from './service-target.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root: real maps';

interface Maps {
  readonly services: BpfMap;
  readonly sourceRanges: BpfMap;
  readonly directBackends: BpfMap;
  readonly slotMap: BpfMap;
  readonly backendMap: BpfMap;
  readonly slots: ArrayMemory;
  readonly backends: ArrayMemory;
  readonly backendCounts: ArrayMemory;
  readonly clock: { ms: number };
  readonly writes: string[];
  start(): ServiceTarget;
  close(): void;
}

/** Real maps of the datapath's layout, small, with an account of what is written. */
function makeMaps(sizes: { services?: number; slots?: number; backends?: number; sourceRanges?: number } = {}): Maps {
  const make = (
    name: 'services' | 'lb_slots' | 'backends' | 'backend_counts' | 'source_ranges' | 'direct_backends',
    maxEntries: number,
  ) => {
    const { type, flags, key, value } = datapathMaps[name];
    return createMap({ name, type, flags, keySize: key.size, valueSize: value.size, maxEntries });
  };
  const writes: string[] = [];
  const counted = (map: BpfMap): BpfMap => {
    const { update } = map;
    const remove = map.delete;
    map.update = (...of) => {
      writes.push(map.name);
      update.apply(map, of);
    };
    map.delete = (key) => {
      const there = remove.call(map, key);
      if (there) writes.push(map.name);
      return there;
    };
    return map;
  };
  const countedMemory = (name: string, map: BpfMap): ArrayMemory => {
    const memory = arrayWindows(map);
    return {
      ...memory,
      write(offset, bytes) {
        writes.push(name);
        memory.write(offset, bytes);
      },
    };
  };
  const services = counted(make('services', sizes.services ?? 64));
  const sourceRanges = counted(make('source_ranges', sizes.sourceRanges ?? 64));
  const directBackends = counted(make('direct_backends', 64));
  const slotMap = make('lb_slots', sizes.slots ?? 1024);
  const backendMap = make('backends', sizes.backends ?? 64);
  const slots = countedMemory('lb_slots', slotMap);
  const backends = countedMemory('backends', backendMap);
  const countMap = make('backend_counts', 4);
  const backendCounts = arrayWindows(countMap);
  const clock = { ms: 0 };
  return {
    services,
    sourceRanges,
    directBackends,
    slotMap,
    backendMap,
    slots,
    backends,
    backendCounts,
    clock,
    writes,
    start: () =>
      createServiceTarget({ services, sourceRanges, directBackends, slots, backends, backendCounts }, () => clock.ms),
    close() {
      for (const each of [slots, backends, backendCounts, countMap]) each.close();
      for (const each of [services, sourceRanges, directBackends, slotMap, backendMap]) each.close();
    },
  };
}

const backend = ({
  address,
  port = 8080,
  ...role
}: Partial<BackendRole> & { address: string; port?: number }): FrontendBackend => ({
  address,
  port,
  role: { state: 'serving', where: 'remote', weight: 1, ...role },
});

function frontend(row: Partial<FrontendRow> & { address: string }): FrontendRow {
  const full = {
    port: 80,
    protocol: 'TCP' as const,
    scope: 'inside' as const,
    kind: 'ClusterIP' as const,
    service: 'shop/web',
    portName: '',
    algorithm: 'random' as const,
    affinitySeconds: 0,
    onlyLocal: false,
    directReturn: false,
    backends: [],
    ...row,
  };
  return { key: frontendKey(full.scope, full.address, full.port, full.protocol), ...full };
}

const hosts = (count: number) => Array.from({ length: count }, (_, i) => backend({ address: `10.0.0.${i + 1}` }));

interface Seen {
  readonly id: number;
  readonly flags: number;
  readonly affinitySeconds: number;
  /** Backends of the slots in order. */
  readonly slots: readonly string[];
  readonly ranges: readonly string[];
  /** Backend and what its number's row says of it. */
  readonly direct: readonly string[];
}

/** What a program would find, by frontend. */
function read(maps: Maps): { frontends: Map<string, Seen>; backends: Map<string, number> } {
  const row = (number: number) =>
    datapathMaps.backends.value.decode(maps.backendMap.lookup(new Uint8Array(Uint32Array.of(number).buffer))!);
  const text = (number: number) => {
    const { addr, port, protocol, flags } = row(number);
    return flags & BackendFlags.BACKEND_USED ? `${addressText(addr)} ${port}/${protocol}` : 'nobody';
  };
  const slot = (index: number) => {
    const element = maps.slotMap.lookup(new Uint8Array(Uint32Array.of(index >> 4).buffer))!;
    return new DataView(element.buffer).getUint32((index & 15) * 4, true);
  };
  const ranges = maps.sourceRanges.entries().map(({ key }) => datapathMaps.source_ranges.key.decode(key));
  const direct = maps.directBackends.entries().map(({ key, value }) => ({
    ...datapathMaps.direct_backends.key.decode(key),
    number: new DataView(value.buffer, value.byteOffset).getUint32(0, true),
  }));
  const frontends = new Map<string, Seen>();
  for (const { key, value } of maps.services.entries()) {
    const { addr, port, protocol, scope } = datapathMaps.services.key.decode(key);
    const { id, flags, affinitySeconds, firstSlot, slotCount } = datapathMaps.services.value.decode(value);
    const address = addressText(addr);
    const name = protocol === 6 ? 'TCP' : protocol === 17 ? 'UDP' : 'SCTP';
    frontends.set(frontendKey(scope === 0 ? 'inside' : 'outside', address, port, name), {
      id,
      flags,
      affinitySeconds,
      slots: Array.from({ length: slotCount }, (_, i) => text(slot(firstSlot + i))),
      ranges: ranges
        .filter((each) => each.service === id)
        .map((each) => blockText({ prefixlen: each.prefixlen - 32, addr: each.addr }))
        .sort(),
      direct: direct
        .filter((each) => each.service === id)
        .map((each) => `${addressText(each.addr)} ${each.port}/${each.protocol} = ${text(each.number)}`)
        .sort(),
    });
  }
  const backends = new Map<string, number>();
  for (let number = 0; number < maps.backendMap.maxEntries; number++) {
    const { flags } = row(number);
    if (flags & BackendFlags.BACKEND_USED) backends.set(text(number), flags);
  }
  const ids = [...frontends.values()].map((each) => each.id);
  assert.equal(new Set(ids).size, ids.length, 'ids differ');
  assert.ok(
    ranges.every((each) => ids.includes(each.service)),
    'no range is left over',
  );
  assert.ok(
    direct.every((each) => ids.includes(each.service)),
    'no direct backend is left over',
  );
  return { frontends, backends };
}

/** The same, from the rows alone. */
function model(rows: readonly FrontendRow[]): ReturnType<typeof read> {
  const frontends = new Map<string, Seen>();
  const backends = new Map<string, number>();
  for (const row of rows) {
    const text = (each: FrontendBackend) => `${each.address} ${each.port}/${protocolNumbers[row.protocol]}`;
    const taking = row.backends.filter((each) => each.role.state === 'serving' && each.role.weight > 0);
    const table = () => {
      const named = taking.map((each) => ({ name: `${each.address} ${each.port}`, weight: each.role.weight }));
      return [...maglevTable(named, maglevSize(named.length))].map((index) => text(taking[index]!));
    };
    const divisor = [1, 2, 3, 4].findLast((d) => taking.every((each) => each.role.weight % d === 0)) ?? 1;
    const plain = () => taking.flatMap((each) => Array<string>(each.role.weight / divisor).fill(text(each)));
    frontends.set(row.key, {
      id: 0,
      flags:
        (row.algorithm === 'maglev' ? ServiceFlags.SERVICE_MAGLEV : 0) |
        (row.affinitySeconds > 0 ? ServiceFlags.SERVICE_AFFINITY : 0) |
        (row.sourceRanges === undefined ? 0 : ServiceFlags.SERVICE_SOURCE_RANGES) |
        (row.onlyLocal ? ServiceFlags.SERVICE_ONLY_LOCAL : 0) |
        (row.kind === 'NodePort' ? ServiceFlags.SERVICE_NODE_PORT : 0) |
        (row.directReturn ? ServiceFlags.SERVICE_DSR : 0),
      affinitySeconds: row.affinitySeconds,
      slots: taking.length === 0 ? [] : row.algorithm === 'maglev' ? table() : plain(),
      ranges: [...(row.sourceRanges ?? [])].sort(),
      direct: row.directReturn
        ? row.backends
            .filter((each) => each.role.where === 'pod')
            .map((each) => `${text(each)} = ${text(each)}`)
            .sort()
        : [],
    });
    for (const each of row.backends) {
      const serving = each.role.state === 'serving' && each.role.weight > 0 ? BackendFlags.BACKEND_SERVING : 0;
      const where =
        each.role.where === 'pod'
          ? BackendFlags.BACKEND_LOCAL
          : each.role.where === 'node'
            ? BackendFlags.BACKEND_NODE
            : 0;
      backends.set(text(each), (backends.get(text(each)) ?? BackendFlags.BACKEND_USED) | serving | where);
    }
  }
  return { frontends, backends };
}

/** The flags of a backend are one row for one Service; here no two Services share an address. */
function same(maps: Maps, rows: readonly FrontendRow[]): void {
  const found = read(maps);
  const wanted = model(rows);
  const plain = (of: Map<string, Seen>) =>
    Object.fromEntries(
      [...of].map(([key, each]) => [key, { ...each, id: 0 }] as const).sort(([a], [b]) => (a < b ? -1 : 1)),
    );
  assert.deepEqual(plain(found.frontends), plain(wanted.frontends));
  assert.deepEqual(new Map([...found.backends].sort()), new Map([...wanted.backends].sort()));
}

const dump = (maps: Maps) =>
  [maps.services, maps.sourceRanges, maps.directBackends, maps.slotMap, maps.backendMap].map((map) =>
    map
      .entries()
      .map(({ key, value }) => `${Buffer.from(key).toString('hex')} ${Buffer.from(value).toString('hex')}`)
      .sort(),
  );

// Two services, over a few backends of their own, at cluster IPs and addresses in both scopes that move between them.
const anyBackends = (net: number) =>
  fc
    .uniqueArray(
      fc.record({
        host: fc.integer({ min: 1, max: 6 }),
        state: fc.constantFrom('serving', 'serving', 'draining', 'maintenance') as fc.Arbitrary<BackendRole['state']>,
        weight: fc.constantFrom(0, 1, 1, 2, 4),
      }),
      { selector: (each) => each.host, maxLength: 6 },
    )
    .map((list) =>
      list
        .sort((a, b) => a.host - b.host)
        // Where a backend is does not change while it is there.
        .map(({ host, state, weight }) =>
          backend({
            address: `10.${net}.0.${host}`,
            state,
            weight,
            where: host < 3 ? 'pod' : host < 5 ? 'remote' : 'node',
          }),
        ),
    );
const oneOrTwo = fc.integer({ min: 1, max: 2 });
const anyRow = fc.tuple(oneOrTwo, oneOrTwo).chain(([net, at]) =>
  fc
    .record({
      place: fc.constantFrom(
        { address: `10.96.0.${at}`, scope: 'inside', kind: 'ClusterIP' } as const,
        { address: `203.0.113.${at}`, scope: 'outside', kind: 'LoadBalancer' } as const,
        { address: `203.0.113.${at}`, scope: 'inside', kind: 'LoadBalancer' } as const,
        { address: `fd00::${at}`, scope: 'outside', kind: 'NodePort' } as const,
      ),
      algorithm: fc.constantFrom('maglev', 'random') as fc.Arbitrary<'maglev' | 'random'>,
      affinitySeconds: fc.constantFrom(0, 60),
      onlyLocal: fc.boolean(),
      directReturn: fc.boolean(),
      sourceRanges: fc.option(fc.subarray(['10.0.0.0/8', '192.0.2.0/24', '198.51.100.7/32']), { nil: undefined }),
      backends: anyBackends(net),
    })
    .map(({ place, ...row }) => frontend({ ...place, ...row, service: `shop/${net}` })),
);
const anyStep = fc.oneof(
  { weight: 6, arbitrary: anyRow.map((row) => ({ put: row })) },
  { weight: 2, arbitrary: fc.nat(7).map((index) => ({ remove: index })) },
  { weight: 1, arbitrary: fc.constant({ restart: true }) },
  { weight: 1, arbitrary: fc.constantFrom(500, 3000).map((ms) => ({ wait: ms })) },
);

test('createServiceTarget() has in the maps what the rows say, after any sequence of changes and restarts', {
  skip,
}, () => {
  fc.assert(
    fc.property(fc.array(anyStep, { maxLength: 25 }), (steps) => {
      const maps = makeMaps({ slots: 4096, backends: 128 });
      try {
        let target = maps.start();
        target.prune?.([]);
        const rows = new Map<string, FrontendRow>();
        for (const step of steps) {
          if ('wait' in step) maps.clock.ms += step.wait;
          else if ('put' in step) {
            assert.deepEqual(target.update([step.put]), []);
            rows.set(step.put.key, step.put);
          } else if ('remove' in step) {
            const row = [...rows.values()][step.remove];
            if (row === undefined) continue;
            assert.deepEqual(target.delete([row]), []);
            rows.delete(row.key);
          } else {
            const before = dump(maps);
            maps.writes.length = 0;
            target = maps.start();
            assert.deepEqual(target.update([...rows.values()].reverse()), []);
            target.prune?.([...rows.values()]);
            assert.deepEqual(dump(maps), before, 'a restart changes nothing');
            assert.deepEqual(maps.writes, [], 'a restart writes nothing');
          }
          same(maps, [...rows.values()]);
        }
        const used = [...rows.values()];
        target.delete(used);
        assert.deepEqual([target.pressure().slots.used, target.pressure().backends.used], [0, 0]);
        same(maps, []);
      } finally {
        maps.close();
      }
    }),
    { numRuns: 60 },
  );
});

test('createServiceTarget() takes over ids, numbers and slots, and removes what is wanted no more', { skip }, () => {
  const maps = makeMaps();
  const keep = frontend({ address: '10.96.0.1', backends: hosts(3) });
  const go = frontend({
    address: '10.96.0.2',
    service: 'shop/other',
    sourceRanges: ['10.0.0.0/8'],
    directReturn: true,
    backends: [backend({ address: '10.0.1.1', where: 'pod' })],
  });
  const first = maps.start();
  first.update([go, keep]);
  const { id, backends } = first.get(keep.key)!;
  maps.writes.length = 0;
  const second = maps.start();
  second.update([keep]);
  assert.deepEqual(maps.writes, []);
  second.prune?.([keep]);
  assert.deepEqual(second.get(keep.key)!.id, id);
  assert.deepEqual(second.get(keep.key)!.backends, backends);
  assert.deepEqual(
    second.takeGone().map(({ address, port, protocol }) => [address, port, protocol]),
    [['10.0.1.1', 8080, 'TCP']],
  );
  same(maps, [keep]);
  maps.close();
});

test('createServiceTarget() gives a frontend that moved to another Service another id, also while nobody looked', {
  skip,
}, () => {
  const maps = makeMaps();
  const of = (service: string) => frontend({ address: '10.96.0.1', service, sourceRanges: ['10.0.0.0/8'] });
  const target = maps.start();
  const idAfter = (at: ServiceTarget, row: FrontendRow) => {
    assert.deepEqual(at.update([row]), []);
    at.prune?.([row]);
    same(maps, [row]);
    return at.get(row.key)!.id;
  };
  const first = idAfter(target, of('shop/one'));
  assert.equal(idAfter(target, of('shop/one')), first);
  const second = idAfter(target, of('shop/two'));
  assert.notEqual(second, first);
  assert.equal(target.byId(first), undefined);
  assert.equal(idAfter(maps.start(), of('shop/two')), second);
  assert.notEqual(idAfter(maps.start(), of('shop/one')), second);
  maps.close();
});

test('createServiceTarget() says SERVING of a backend that gets new connections in any of its frontends', {
  skip,
}, () => {
  const maps = makeMaps();
  const target = maps.start();
  const at = (address: string, state: BackendRole['state']) =>
    frontend({ address, backends: [backend({ address: '10.0.0.1', state })] });
  const flags = () => read(maps).backends.get('10.0.0.1 8080/6');
  target.update([at('10.96.0.1', 'serving'), at('10.96.0.2', 'draining')]);
  assert.equal(flags(), BackendFlags.BACKEND_USED | BackendFlags.BACKEND_SERVING);
  target.update([at('10.96.0.1', 'draining')]);
  assert.equal(flags(), BackendFlags.BACKEND_USED);
  target.update([at('10.96.0.2', 'serving')]);
  target.delete([at('10.96.0.2', 'serving')]);
  assert.equal(flags(), BackendFlags.BACKEND_USED);
  maps.close();
});

test('createServiceTarget() gives a number to nobody else before it has rested, also after a restart', { skip }, () => {
  const maps = makeMaps({ backends: 4 });
  let target = maps.start();
  target.update([frontend({ address: '10.96.0.1', backends: hosts(3) })]);
  target = maps.start();
  const errorsOf = (row: FrontendRow) => (target.update([row]) as readonly RowFailure[]).map((each) => each.error);
  target.update([frontend({ address: '10.96.0.1', backends: hosts(2) })]);
  target.prune?.([]);
  const one = frontend({ address: '10.96.0.2', service: 'shop/b', backends: hosts(1) });
  assert.match(errorsOf(one).join(), /no number left/);
  maps.clock.ms = 2_000;
  assert.deepEqual(target.update([one]), []);
  assert.equal(new Set([...target.get(one.key)!.backends, ...target.get('inside 10.96.0.1:80/TCP')!.backends]).size, 3);
  maps.close();
});

test('createServiceTarget() lays new slots elsewhere, so that a program in the middle of a pick reads a whole table', {
  skip,
}, () => {
  const maps = makeMaps();
  const target = maps.start();
  const first = () => target.get('inside 10.96.0.1:80/TCP')!.table.first;
  target.update([frontend({ address: '10.96.0.1', backends: hosts(2) })]);
  const before = first();
  target.update([frontend({ address: '10.96.0.1', backends: hosts(3) })]);
  assert.notEqual(first(), before);
  target.update([frontend({ address: '10.96.0.1', backends: hosts(4) })]);
  assert.notEqual(first(), before, 'the first range still rests');
  maps.close();
});

test('createServiceTarget() falls back to random where there is no room for a Maglev table, and says how often', {
  skip,
}, () => {
  const maps = makeMaps({ slots: 8 });
  const target = maps.start();
  const row = frontend({ address: '10.96.0.1', algorithm: 'maglev', backends: hosts(2) });
  assert.deepEqual(target.update([row]), []);
  assert.equal(target.get(row.key)!.table.algorithm, 'random');
  assert.equal(target.pressure().withoutTable, 1);
  assert.deepEqual(read(maps).frontends.get(row.key)!.slots, ['10.0.0.1 8080/6', '10.0.0.2 8080/6']);
  target.delete([row]);
  assert.equal(target.pressure().withoutTable, 0);
  maps.close();
});

for (const [what, sizes, error] of [
  ['frontends', { services: 2 }, /map services.*full/],
  ['backends', { backends: 5 }, /no number left/],
  ['slots', { slots: 2 }, /no room for its slots/],
  ['source ranges', { sourceRanges: 2 }, /map source_ranges.*full/],
] as const)
  test(`createServiceTarget() with no room for more ${what} fails that row alone and leaves nothing of it`, {
    skip,
  }, () => {
    const maps = makeMaps(sizes);
    const target = maps.start();
    const rows = [1, 2, 3, 4].map((i) =>
      frontend({
        address: `10.96.0.${i}`,
        service: `shop/${i}`,
        sourceRanges: [`10.${i}.0.0/16`],
        directReturn: true,
        backends: [1, 2].map((host) => backend({ address: `10.0.${i}.${host}`, where: 'pod' })),
      }),
    );
    const failures = target.update(rows) as readonly RowFailure[];
    assert.deepEqual(
      failures.map((each) => each.key),
      [rows[2]!.key, rows[3]!.key],
    );
    for (const failure of failures) assert.match(failure.error, error);
    same(maps, rows.slice(0, 2));
    target.delete([rows[0]!]);
    maps.clock.ms += 3_000;
    assert.deepEqual(target.update([rows[2]!]), []);
    same(maps, [rows[1]!, rows[2]!]);
    maps.close();
  });

test('createServiceTarget() keeps what a backend was counted over restarts, and counts its successor anew', {
  skip,
}, () => {
  const maps = makeMaps();
  try {
    let target = maps.start();
    const count = (number: number) => maps.backendCounts.write(number * 4, new Uint8Array(Uint32Array.of(7).buffer));
    const row = (host: number) =>
      frontend({ address: '10.96.0.1', backends: [backend({ address: `10.0.0.${host}` })] });
    target.update([row(1)]);
    target.prune([]);
    const [first] = target.get(row(1).key)!.backends;
    assert.equal(target.connections(first!), 0);
    count(first!);
    target = maps.start();
    target.update([row(1)]);
    target.prune([]);
    assert.deepEqual(target.get(row(1).key)!.backends, [first]);
    assert.equal(target.connections(first!), 7);
    target.update([row(2)]);
    maps.clock.ms += 10_000;
    target.update([row(3)]);
    assert.deepEqual(target.get(row(3).key)!.backends, [first], 'the number has rested');
    assert.equal(target.connections(first!), 0);
  } finally {
    maps.close();
  }
});
