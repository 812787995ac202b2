import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { assignAddresses } from './assign-addresses.ts';
import { type PoolObject, type PoolRow, parsePool } from './parse-pool.ts';
import { type AddressRequest, parseRequest, type RequestObject, requestCondition } from './parse-request.ts';

let clock = 0;
const time = () => new Date(Date.UTC(2026, 0, 1) + clock++ * 1000).toISOString();

function pool(name: string, spec: PoolObject['spec']): PoolRow {
  return parsePool({ metadata: { name, creationTimestamp: time() }, spec });
}

interface Given {
  readonly namespace?: string;
  readonly labels?: Record<string, string>;
  readonly annotations?: Record<string, string>;
  readonly spec?: RequestObject['spec'];
  /** What its status says; undefined: it was never looked at. */
  readonly has?: readonly string[];
}

function service(name: string, given: Given = {}): AddressRequest {
  const condition = {
    type: requestCondition,
    status: 'True',
    reason: 'satisfied',
    message: '',
    lastTransitionTime: '',
  };
  return parseRequest({
    metadata: {
      name,
      namespace: given.namespace,
      creationTimestamp: time(),
      labels: given.labels,
      annotations: given.annotations,
    },
    spec: { type: 'LoadBalancer', ipFamilies: ['IPv4'], ports: [{ port: 80 }], ...given.spec },
    status:
      given.has === undefined
        ? {}
        : { loadBalancer: { ingress: given.has.map((ip) => ({ ip })) }, conditions: [condition] },
  })!;
}

/** What each service gets, or why not. */
function results(pools: readonly PoolRow[], services: readonly AddressRequest[]): Record<string, string> {
  const { services: outcomes } = assignAddresses(pools, services);
  return Object.fromEntries(
    [...outcomes].map(([key, outcome]) => [
      key.replace('default/', ''),
      outcome === undefined
        ? 'released'
        : [...outcome.addresses, ...(outcome.reason === 'satisfied' ? [] : [outcome.reason])].join(' '),
    ]),
  );
}

const blue = pool('blue', { blocks: [{ cidr: '10.1.0.0/29' }, { cidr: 'fd01::/64' }] });
const dual = { ipFamilies: ['IPv4', 'IPv6'], ipFamilyPolicy: 'RequireDualStack' };

describe('assignAddresses()', () => {
  test('gives the lowest free address of each family', () => {
    assert.deepEqual(results([blue], [service('a'), service('b', { spec: dual })]), {
      a: '10.1.0.0',
      b: '10.1.0.1 fd01::',
    });
  });

  test('leaves first and last address of a block out when told to, and knows ranges', () => {
    const pools = [
      pool('small', {
        blocks: [{ cidr: '10.2.0.0/30' }, { start: '10.3.0.5', stop: '10.3.0.6' }, { start: '10.4.0.1' }],
        allowFirstLastIPs: 'No',
      }),
    ];
    const all = Array.from({ length: 6 }, (_, i) => service(`s${i}`));
    assert.deepEqual(Object.values(results(pools, all)), [
      '10.2.0.1',
      '10.2.0.2',
      '10.3.0.5',
      '10.3.0.6',
      '10.4.0.1',
      'out_of_ips',
    ]);
  });

  test('is asleep without a pool, and leaves alone what another controller gave', () => {
    assert.deepEqual(results([], [service('a')]), {});
    const foreign = parseRequest({
      metadata: { name: 'f' },
      spec: { type: 'LoadBalancer' },
      status: { loadBalancer: { ingress: [{ ip: '192.0.2.1' }] } },
    })!;
    assert.deepEqual(results([blue], [foreign]), {});
  });

  test('serves services without a class and of its own classes only', () => {
    const of = (loadBalancerClass: string) =>
      parseRequest({ metadata: { name: 'x' }, spec: { type: 'LoadBalancer', loadBalancerClass } });
    assert.ok(of('io.cilium/l2-announcer')?.wanted);
    assert.ok(of('weir.dev/l2')?.wanted);
    assert.equal(of('example.com/other'), undefined);
  });

  test('asks selectors, with the names of service and namespace as labels', () => {
    const selecting = (serviceSelector: unknown) => [pool('p', { blocks: [{ start: '10.1.0.1' }], serviceSelector })];
    const one = service('web', { namespace: 'shop', labels: { tier: 'front' } });
    const result = (selector: unknown) => Object.values(results(selecting(selector), [one]))[0];
    assert.equal(result({ matchLabels: { tier: 'front' } }), '10.1.0.1');
    assert.equal(result({ matchLabels: { tier: 'back' } }), 'pool_selector_mismatch');
    assert.equal(result({ matchLabels: { 'io.kubernetes.service.namespace': 'shop' } }), '10.1.0.1');
    assert.equal(
      result({ matchExpressions: [{ key: 'io.kubernetes.service.name', operator: 'In', values: ['web'] }] }),
      '10.1.0.1',
    );
    assert.equal(result({ matchExpressions: [{ key: 'x', operator: 'Sometimes' }] }), 'no_pool');
  });

  test('gives nothing new from a disabled pool, and lets services keep what they have of it', () => {
    const off = { ...blue, disabled: true };
    assert.deepEqual(results([off], [service('old', { has: ['10.1.0.3'] }), service('new')]), {
      old: '10.1.0.3',
      new: 'no_pool',
    });
  });

  test('does not use the younger of two pools that overlap, whatever the order', () => {
    const younger = pool('younger', { blocks: [{ start: '10.1.0.7', stop: '10.1.0.20' }] });
    for (const pools of [
      [blue, younger],
      [younger, blue],
    ]) {
      const assignment = assignAddresses(pools, [service('a', { spec: { loadBalancerIP: '10.1.0.12' } })]);
      assert.match(assignment.pools.get('younger')!.conflict!, /10\.1\.0\.7-10\.1\.0\.20 overlaps .* pool blue/);
      assert.equal(assignment.pools.get('blue')!.conflict, undefined);
      assert.equal(assignment.services.get('default/a')!.reason, 'no_pool');
    }
  });

  test('PreferDualStack is content with one family, RequireDualStack is not', () => {
    const four = [pool('four', { blocks: [{ cidr: '10.5.0.0/24' }] })];
    const prefer = service('prefer', { spec: { ipFamilies: ['IPv4', 'IPv6'], ipFamilyPolicy: 'PreferDualStack' } });
    assert.deepEqual(results(four, [prefer, service('require', { spec: dual })]), {
      prefer: '10.5.0.0',
      require: '10.5.0.1 no_pool',
    });
  });

  test('gives what was asked for by either annotation or the field, all of it', () => {
    const asks = (name: string, annotation: string, text: string, spec: RequestObject['spec'] = {}) =>
      service(name, { annotations: { [annotation]: text }, spec });
    assert.deepEqual(
      results(
        [blue],
        [
          asks('a', 'lbipam.cilium.io/ips', '10.1.0.6, fd01::9', dual),
          asks('b', 'io.cilium/lb-ipam-ips', '10.1.0.5'),
          service('c', { spec: { loadBalancerIP: '10.1.0.4' } }),
          asks('d', 'lbipam.cilium.io/ips', '10.1.0.4'),
          asks('e', 'lbipam.cilium.io/ips', '10.9.9.9'),
          asks('f', 'lbipam.cilium.io/ips', 'nonsense'),
          asks('g', 'lbipam.cilium.io/ips', 'fd01::5'),
        ],
      ),
      {
        a: '10.1.0.6 fd01::9',
        b: '10.1.0.5',
        c: '10.1.0.4',
        d: 'already_allocated',
        e: 'no_pool',
        f: 'invalid_request',
        g: 'invalid_request',
      },
    );
  });

  test('an address that somebody has is not taken from him by an older service that asks for it', () => {
    const older = service('older', { annotations: { 'lbipam.cilium.io/ips': '10.1.0.2' }, has: ['10.1.0.0'] });
    assert.deepEqual(results([blue], [older, service('younger', { has: ['10.1.0.2'] })]), {
      older: 'already_allocated',
      younger: '10.1.0.2',
    });
  });

  test('shares an address under a key while ports, namespaces and traffic policies allow it', () => {
    const shares = (name: string, port: number, given: Given = {}) =>
      service(name, {
        ...given,
        annotations: { 'lbipam.cilium.io/sharing-key': 'k', ...given.annotations },
        spec: { ports: [{ port }], ...given.spec },
      });
    const across = { 'lbipam.cilium.io/sharing-cross-namespace': 'other' };
    const back = { 'lbipam.cilium.io/sharing-cross-namespace': '*' };
    assert.deepEqual(
      results(
        [blue],
        [
          shares('a', 80, { annotations: across }),
          shares('b', 81),
          shares('c', 80),
          shares('d', 82, { namespace: 'other' }),
          shares('e', 83, { spec: { ports: [{ port: 83 }], externalTrafficPolicy: 'Local' } }),
        ],
      ),
      { a: '10.1.0.0', b: '10.1.0.0', c: '10.1.0.1', 'other/d': '10.1.0.2', e: '10.1.0.3' },
    );
    assert.deepEqual(
      results(
        [blue],
        [shares('a', 80, { annotations: across }), shares('d', 82, { namespace: 'other', annotations: back })],
      ),
      {
        a: '10.1.0.0',
        'other/d': '10.1.0.0',
      },
    );
    assert.deepEqual(
      results([blue], [shares('a', 80), shares('b', 80, { annotations: { 'lbipam.cilium.io/ips': '10.1.0.0' } })]),
      { a: '10.1.0.0', b: 'already_allocated_incompatible_service' },
    );
  });

  test('who stops sharing gets an address of its own; the older keeps the one they had', () => {
    const shared = { annotations: { 'lbipam.cilium.io/sharing-key': 'k' }, has: ['10.1.0.3'] };
    const a = service('a', shared);
    const b = service('b', { has: ['10.1.0.3'] });
    assert.deepEqual(results([blue], [a, b]), { a: '10.1.0.3', b: '10.1.0.0' });
  });

  test('gives no address of a node, and takes it back from a service when a node comes with it', () => {
    const taken = new Map([
      ['10.1.0.0', 'node node1'],
      ['10.1.0.1', 'node node2'],
    ]);
    const asks = service('asks', { spec: { loadBalancerIP: '10.1.0.0' } });
    const { services, pools } = assignAddresses([blue], [service('has', { has: ['10.1.0.1'] }), asks], taken);
    assert.equal(pools.get('blue')!.used, 3n);
    assert.deepEqual(services.get('default/has')!.addresses, ['10.1.0.2']);
    assert.match(services.get('default/asks')!.message, /10\.1\.0\.0 is an address of node node1/);
  });

  test('takes an address back when its pool or type is gone, and gives another when there is one', () => {
    const other = pool('other', { blocks: [{ start: '10.7.0.1' }] });
    const has = service('a', { has: ['10.1.0.3'] });
    assert.deepEqual(results([other], [has]), { a: '10.7.0.1' });
    assert.deepEqual(results([], [has]), { a: 'no_pool' });
    assert.deepEqual(results([blue], [service('n', { has: ['10.1.0.3'], spec: { type: 'NodePort' } })]), {
      n: 'released',
    });
  });
});

/** Repeatable random numbers. */
function randomFrom(seed: number): (below: number) => number {
  let state = seed * 2_654_435_761 + 1;
  return (below) => {
    state = (Math.imul(state ^ (state >>> 15), 2_246_822_519) + 3_266_489_917) >>> 0;
    return (state >>> 8) % below;
  };
}

function randomScene(seed: number): { pools: PoolRow[]; services: AddressRequest[] } {
  const random = randomFrom(seed);
  const base = () => 10 + random(24);
  const pools = Array.from({ length: 1 + random(4) }, (_, i) =>
    pool(`p${i}`, {
      blocks: [
        random(2)
          ? { start: `10.0.0.${base()}`, stop: `10.0.0.${40 + random(3)}` }
          : { cidr: `10.0.0.${base() & ~3}/30` },
        ...(random(2) ? [{ cidr: `fd0${random(2)}::/126` }] : []),
      ],
      disabled: random(6) === 0,
      ...(random(3) === 0 ? { serviceSelector: { matchLabels: { c: String(random(2)) } } } : {}),
    }),
  );
  const services = Array.from({ length: random(24) }, (_, i) =>
    service(`s${i}`, {
      namespace: `n${random(2)}`,
      labels: { c: String(random(2)) },
      annotations: {
        ...(random(3) === 0 ? { 'lbipam.cilium.io/sharing-key': `k${random(2)}` } : {}),
        ...(random(4) === 0 ? { 'lbipam.cilium.io/ips': `10.0.0.${base()}` } : {}),
        ...(random(4) === 0 ? { 'lbipam.cilium.io/sharing-cross-namespace': '*' } : {}),
      },
      spec: { ports: [{ port: 80 + random(3) }], ...(random(3) === 0 ? dual : {}) },
      ...(random(3) === 0 ? { has: [`10.0.0.${base()}`] } : {}),
    }),
  );
  return { pools, services };
}

/** The services as they are once the outcome is in their status. */
function after(services: readonly AddressRequest[], pools: readonly PoolRow[]): AddressRequest[] {
  const { services: outcomes } = assignAddresses(pools, services);
  return services.map((each) => {
    const outcome = outcomes.get(each.key);
    return outcome === undefined ? each : { ...each, assigned: outcome.addresses, ours: true };
  });
}

const plain = (services: readonly AddressRequest[], pools: readonly PoolRow[]) =>
  [...assignAddresses(pools, services).services].sort(([a], [b]) => (a < b ? -1 : 1));

describe('assignAddresses(), on random pools and services', () => {
  const seeds = Array.from({ length: 400 }, (_, i) => i + 1);

  test('gives no address twice, unless all who have it share it and have no port in common', () => {
    for (const seed of seeds) {
      const { pools, services } = randomScene(seed);
      const byKey = new Map(services.map((each) => [each.key, each]));
      const having = new Map<string, AddressRequest[]>();
      for (const [key, outcome] of assignAddresses(pools, services).services)
        for (const address of outcome?.addresses ?? [])
          having.set(address, [...(having.get(address) ?? []), byKey.get(key)!]);
      for (const [address, list] of having) {
        if (list.length === 1) continue;
        assert.equal(new Set(list.map((each) => each.sharing?.key ?? each.key)).size, 1, `seed ${seed}: ${address}`);
        const ports = list.flatMap((each) => each.ports);
        assert.equal(new Set(ports).size, ports.length, `seed ${seed}: ${address}`);
      }
    }
  });

  test('changes nothing when asked again, and nothing of others when a service comes', () => {
    for (const seed of seeds) {
      const { pools, services } = randomScene(seed);
      const settled = after(services, pools);
      assert.deepEqual(plain(settled, pools), plain(services, pools), `seed ${seed}`);
      const before = new Map(plain(settled, pools));
      const more = plain([...settled, service('late')], pools);
      for (const [key, outcome] of more)
        if (key !== 'default/late') assert.deepEqual(outcome, before.get(key), `seed ${seed}`);
    }
  });

  test('does not depend on the order of services and pools', () => {
    for (const seed of seeds) {
      const { pools, services } = randomScene(seed);
      assert.deepEqual(plain([...services].reverse(), [...pools].reverse()), plain(services, pools), `seed ${seed}`);
    }
  });

  test('ten thousand services take well under a second', (t) => {
    const pools = [pool('large', { blocks: [{ cidr: '10.32.0.0/16' }] })];
    const services = Array.from({ length: 10_000 }, (_, i) => service(`s${i}`));
    const beganMs = performance.now();
    const { services: outcomes } = assignAddresses(pools, services);
    const tookMs = performance.now() - beganMs;
    t.diagnostic(`${Math.round(tookMs)} ms`);
    assert.equal(outcomes.get('default/s9999')!.addresses[0], '10.32.39.15');
    assert.ok(tookMs < 1000);
  });
});
