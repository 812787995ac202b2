import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { PolicyRule, WrittenPeer } from '../../core/rows.ts';
import { parseCiliumPolicy } from './parse-cilium-policy.ts';

const policy = (spec: object, more: object = {}) => ({
  apiVersion: 'cilium.io/v2',
  kind: 'CiliumNetworkPolicy',
  metadata: { name: 'p', namespace: 'shop' },
  spec: { endpointSelector: {}, ...spec },
  ...more,
});
const clusterwide = (spec: object) => ({
  kind: 'CiliumClusterwideNetworkPolicy',
  metadata: { name: 'p' },
  spec,
});
/** The only spec of a policy that has nothing wrong. */
function specOf(object: object) {
  const { row, problems } = parseCiliumPolicy(object);
  assert.deepEqual(problems, []);
  return row!.specs[0]!;
}
const only = (rules: readonly PolicyRule<WrittenPeer>[]) => {
  assert.equal(rules.length, 1);
  return rules[0]!;
};
const ingress = (rule: object) => only(specOf(policy({ ingress: [rule] })).ingress);

// Source: the documentation of layer 3 policies ("an empty rule", "ingress/egress default deny") and the reading of lists
// in the rival's own conversion: an empty list of peers selects nobody, an absent one everybody.
const lists: [what: string, rule: object, want: { peers?: number | undefined; ports?: number | undefined }][] = [
  ['a rule with nothing in it allows nothing', {}, { peers: 0 }],
  ['ports without peers are for everybody', { toPorts: [{ ports: [{ port: '80', protocol: 'TCP' }] }] }, { ports: 1 }],
  ['an empty list of endpoints selects nobody', { fromEndpoints: [] }, { peers: 0 }],
  [
    'the same with ports',
    { fromEndpoints: [], toPorts: [{ ports: [{ port: '80', protocol: 'TCP' }] }] },
    { peers: 0, ports: 1 },
  ],
  ['an empty list of entities selects nobody', { fromEntities: [] }, { peers: 0 }],
  ['an empty list of ports is as none', { fromEntities: ['host'], toPorts: [] }, { peers: 1 }],
  ['an entry without ports opens none', { fromEntities: ['host'], toPorts: [{}] }, { peers: 1, ports: 0 }],
  ['all is everybody', { fromEntities: ['all'] }, {}],
  ['none is nobody', { fromEntities: ['none'] }, { peers: 0 }],
  ['a protocol left out is TCP, UDP and SCTP', { toPorts: [{ ports: [{ port: '53' }] }] }, { ports: 3 }],
  ['port 0 is every port', { toPorts: [{ ports: [{ port: '0', protocol: 'TCP' }] }] }, { ports: 1 }],
];

for (const [what, rule, { peers, ports }] of lists) {
  test(`parseCiliumPolicy(): ${what}`, () => {
    const read = ingress(rule);
    assert.equal(read.peers?.length, peers);
    assert.equal(read.ports?.length, ports);
  });
}

test('parseCiliumPolicy(): port 0 means all of its protocol, and an end of 0 is none', () => {
  const ports = (port: object) => ingress({ toPorts: [{ ports: [port] }] }).ports;
  assert.deepEqual(ports({ port: '0', protocol: 'UDP' }), [{ kind: 'all', protocol: 17 }]);
  assert.deepEqual(ports({ port: '80', endPort: 0, protocol: 'TCP' }), [
    { kind: 'range', protocol: 6, first: 80, last: 80 },
  ]);
  assert.deepEqual(ports({ port: 'HTTP', protocol: 'TCP' }), [{ kind: 'named', protocol: 'TCP', name: 'http' }]);
  assert.deepEqual(ports({ protocol: 'VRRP' }), [{ kind: 'all', protocol: 112 }]);
});

test('parseCiliumPolicy(): selectors say in which namespace, or mean the policy’s own', () => {
  const peer = (selector: object) => ingress({ fromEndpoints: [selector] }).peers;
  const labels = (matchLabels: object) => [{ kind: 'endpoints', selector: { matchLabels, matchExpressions: [] } }];
  const namespace = 'io.kubernetes.pod.namespace';
  assert.deepEqual(peer({ matchLabels: { app: 'a' } }), labels({ app: 'a', [namespace]: 'shop' }));
  assert.deepEqual(peer({}), labels({ [namespace]: 'shop' }));
  assert.deepEqual(
    peer({ matchLabels: { 'k8s:app': 'a', 'any:team': 'b', [`k8s:${namespace}`]: 'data' } }),
    labels({ app: 'a', team: 'b', [namespace]: 'data' }),
  );
  const ofNamespace = 'io.cilium.k8s.namespace.labels.team';
  assert.deepEqual(peer({ matchLabels: { [`k8s:${ofNamespace}`]: 'a' } }), labels({ [ofNamespace]: 'a' }));
  assert.deepEqual(peer({ matchLabels: { 'reserved:host': '' } }), [{ kind: 'reserved', identities: [1] }]);
  assert.deepEqual(peer({ matchLabels: { 'container:app': 'a' } }), []);
  const everywhere = only(specOf(clusterwide({ endpointSelector: {}, ingress: [{ fromEndpoints: [{}] }] })).ingress);
  assert.deepEqual(everywhere.peers, [
    {
      kind: 'endpoints',
      selector: { matchLabels: {}, matchExpressions: [{ key: namespace, operator: 'Exists', values: [] }] },
    },
  ]);
});

test('parseCiliumPolicy(): who writes rules for a direction isolates it, unless told otherwise', () => {
  const isolates = (spec: object) => specOf(policy(spec)).isolates;
  assert.deepEqual(isolates({ ingress: [{}] }), { ingress: true, egress: false });
  assert.deepEqual(isolates({ ingress: [] }), { ingress: false, egress: false });
  assert.deepEqual(isolates({ egressDeny: [{ toEntities: ['world'] }] }), { ingress: false, egress: true });
  assert.deepEqual(isolates({ ingress: [{}], enableDefaultDeny: { ingress: false } }), {
    ingress: false,
    egress: false,
  });
  assert.deepEqual(isolates({ ingress: [], enableDefaultDeny: { egress: true } }), { ingress: false, egress: true });
});

test('parseCiliumPolicy(): a rule that needs what is not enforced yet isolates, allows nothing, and is named', () => {
  const cases: [string, object][] = [
    ['toFQDNs', { toFQDNs: [{ matchName: 'example.com' }] }],
    ['toPorts[0].rules', { toPorts: [{ ports: [{ port: '80', protocol: 'TCP' }], rules: { http: [{}] } }] }],
    ['toPorts[0].serverNames', { toPorts: [{ ports: [{ port: '443', protocol: 'TCP' }], serverNames: ['a.b'] }] }],
    ['authentication', { toEndpoints: [{}], authentication: { mode: 'required' } }],
    ['toGroups', { toGroups: [{ aws: { region: 'x' } }] }],
    [
      'toPorts[0].listener',
      { toPorts: [{ ports: [{ port: '80', protocol: 'TCP' }], listener: { name: 'l', envoyConfig: { name: 'e' } } }] },
    ],
  ];
  for (const [place, rule] of cases) {
    const { row, problems } = parseCiliumPolicy(policy({ egress: [rule, { toEntities: ['host'] }] }));
    assert.deepEqual(problems, []);
    assert.deepEqual(row!.unenforced, [`spec.egress[0].${place}`]);
    assert.equal(row!.specs[0]!.isolates.egress, true);
    assert.deepEqual(
      row!.specs[0]!.egress.map(({ index }) => index),
      [1],
      'what other rules allow stays allowed',
    );
  }
  assert.deepEqual(
    parseCiliumPolicy(policy({ egress: [{ toEndpoints: [{}], authentication: { mode: 'disabled' } }] })).row!
      .unenforced,
    [],
  );
});

test('parseCiliumPolicy(): every spec is a policy of its own', () => {
  const specs = [
    { endpointSelector: { matchLabels: { app: 'a' } }, ingress: [{}] },
    { endpointSelector: {}, egress: [{}], log: { value: 'audit' } },
  ];
  const { row, problems } = parseCiliumPolicy({ ...policy({}), spec: undefined, specs });
  assert.deepEqual(problems, []);
  assert.deepEqual(
    row!.specs.map(({ key, spec, isolates, log }) => ({ key, spec, isolates, log })),
    [
      { key: 'CiliumNetworkPolicy/shop/p', spec: 0, isolates: { ingress: true, egress: false }, log: undefined },
      { key: 'CiliumNetworkPolicy/shop/p#1', spec: 1, isolates: { ingress: false, egress: true }, log: 'audit' },
    ],
  );
});

const wrong: [what: string, object: object, message: RegExp][] = [
  [
    'two kinds of peers',
    policy({ ingress: [{ fromEndpoints: [{}], fromEntities: ['world'] }] }),
    /combines fromEndpoints and fromEntities/,
  ],
  [
    'a service with ports',
    policy({
      egress: [{ toServices: [{ k8sService: { serviceName: 'a' } }], toPorts: [{ ports: [{ port: '80' }] }] }],
    }),
    /combines toServices and toPorts/,
  ],
  [
    'icmps beside ports',
    policy({ ingress: [{ icmps: [{ fields: [{ type: 8 }] }], toPorts: [{ ports: [{ port: '80' }] }] }] }),
    /has icmps beside toPorts/,
  ],
  ['an entity that is none', policy({ ingress: [{ fromEntities: ['moon'] }] }), /fromEntities\[0\] is not an entity/],
  ['requirements', policy({ ingress: [{ fromRequires: ['a'] }] }), /fromRequires is no longer supported/],
  [
    'no selector',
    policy({ endpointSelector: undefined, ingress: [{}] }),
    /must have one of endpointSelector and nodeSelector/,
  ],
  [
    'nodes in a namespace',
    policy({ endpointSelector: undefined, nodeSelector: {}, ingress: [{}] }),
    /nodeSelector is for CiliumClusterwideNetworkPolicy only/,
  ],
  [
    'another namespace',
    policy({ endpointSelector: { matchLabels: { 'io.kubernetes.pod.namespace': 'data' } }, ingress: [{}] }),
    /selects in the namespace data/,
  ],
  [
    'layer 7 for nodes',
    clusterwide({
      nodeSelector: {},
      ingress: [{ toPorts: [{ ports: [{ port: '80', protocol: 'TCP' }], rules: { http: [{}] } }] }],
    }),
    /layer 7, which policies for nodes cannot have/,
  ],
  [
    'a range upside down',
    policy({ ingress: [{ toPorts: [{ ports: [{ port: '90', endPort: 80 }] }] }] }),
    /endPort must not be below port, 90/,
  ],
  [
    'an exception outside',
    policy({ egress: [{ toCIDRSet: [{ cidr: '10.0.0.0/8', except: ['11.0.0.0/16'] }] }] }),
    /except\[0\] must be inside of 10\.0\.0\.0\/8/,
  ],
  ['an unknown type', policy({ ingress: [{ icmps: [{ fields: [{ type: 'Ping' }] }] }] }), /is not a type of ICMP/],
  ['neither spec nor specs', { ...policy({}), spec: undefined }, /spec is missing/],
  ['a log value too long', policy({ ingress: [{}], log: { value: 'x'.repeat(33) } }), /longer than 32/],
];

for (const [what, object, message] of wrong) {
  test(`parseCiliumPolicy() names ${what}, isolates and allows nothing`, () => {
    const { row } = parseCiliumPolicy(object);
    assert.match(row?.error ?? '', message);
    for (const spec of row!.specs) {
      assert.deepEqual(spec.isolates, { ingress: true, egress: true });
      assert.deepEqual([spec.ingress, spec.egress], [[], []]);
    }
  });
}

test('parseCiliumPolicy(): a policy that denies and cannot be read denies everybody in that direction', () => {
  const bad = { ingress: [{ fromEntities: ['moon'] }] };
  const deny = (list: string, index = 0) => ({ index, list, action: 'deny' });
  const spared = { ...deny('ingressDeny'), sparesOwnNode: 'always' };
  const cases: [string, object, object[], object[]][] = [
    ['one direction', { egressDeny: [{ toEntities: ['world'] }] }, [], [deny('egressDeny')]],
    ['both', { ingressDeny: [{}], egressDeny: [{}] }, [spared], [deny('egressDeny')]],
    ['a denial that is not enforced', { egressDeny: [{ toGroups: [{}] }] }, [], [deny('egressDeny')]],
    ['a list that is none', { ingressDeny: {} }, [deny('ingressDeny')], []],
    ['no denials', { egressDeny: [] }, [], []],
  ];
  for (const [what, spec, ingress, egress] of cases) {
    const { row } = parseCiliumPolicy(policy({ ...bad, ...spec }));
    assert.notEqual(row!.error, undefined, what);
    assert.deepEqual([row!.specs[0]!.ingress, row!.specs[0]!.egress], [ingress, egress], what);
  }
  const node = parseCiliumPolicy(clusterwide({ nodeSelector: {}, ...bad, ingressDeny: [{}] })).row!;
  assert.deepEqual(node.specs[0]!.ingress, [], 'a node keeps what it cannot do without');
});

test('parseCiliumPolicy(): a label that does not count leaves the selector, so that the closed policy selects more', () => {
  const of = (endpointSelector: object) => {
    const { row } = parseCiliumPolicy(policy({ endpointSelector, ingress: [{}] }));
    assert.match(row!.error!, /changes per pod or rollout/);
    const { subject } = row!.specs[0]!;
    return subject.kind === 'endpoints' ? subject.selector : undefined;
  };
  const namespace = { 'io.kubernetes.pod.namespace': 'shop' };
  assert.deepEqual(of({ matchLabels: { app: 'web', 'k8s:pod-template-hash': 'abc' } }), {
    matchLabels: { app: 'web', ...namespace },
    matchExpressions: [],
  });
  assert.deepEqual(of({ matchLabels: { app: 'web' }, matchExpressions: [{ key: 'job-name', operator: 'Exists' }] }), {
    matchLabels: { app: 'web', ...namespace },
    matchExpressions: [],
  });
});

test('parseCiliumPolicy(): a label of the name __proto__ is not lost on the way', () => {
  for (const key of ['__proto__', 'k8s:__proto__']) {
    const selector = { matchLabels: Object.fromEntries([[key, 'x']]) };
    for (const spec of [
      { ingress: [{ fromEndpoints: [selector] }] },
      { endpointSelector: selector, ingress: [{ fromEndpoints: [{}] }] },
    ]) {
      assert.match(parseCiliumPolicy(policy(spec)).row!.error ?? '', /"__proto__"\] is not a label key/, key);
    }
  }
});

test('parseCiliumPolicy(): an empty namespace of a service is none, and means any', () => {
  const peers = (service: object) => only(specOf(policy({ egressDeny: [{ toServices: [service] }] })).egress).peers;
  assert.deepEqual(peers({ k8sService: { namespace: '', serviceName: 'db' } }), [
    { kind: 'service', namespace: undefined, name: 'db' },
  ]);
  assert.deepEqual(peers({ k8sServiceSelector: { namespace: '', selector: {} } }), [
    { kind: 'services', namespace: undefined, selector: { matchLabels: {}, matchExpressions: [] } },
  ]);
});

test('parseCiliumPolicy() never throws on mutated manifests, and never allows anything after a problem', () => {
  const good = policy({
    ingress: [
      {
        fromEndpoints: [{ matchLabels: { 'k8s:app': 'a' } }],
        toPorts: [{ ports: [{ port: '80', endPort: 90, protocol: 'TCP' }] }],
      },
      { fromCIDRSet: [{ cidr: '10.0.0.0/8', except: ['10.1.0.0/16'] }] },
      { fromEntities: ['world', 'cluster'], icmps: [{ fields: [{ family: 'IPv6', type: 'EchoRequest' }] }] },
    ],
    egressDeny: [{ toServices: [{ k8sServiceSelector: { selector: { matchLabels: { a: 'b' } } } }] }],
    egress: [
      { toFQDNs: [{ matchPattern: '*.example.com' }] },
      { toNodes: [{ matchExpressions: [{ key: 'a', operator: 'Exists' }] }] },
    ],
    enableDefaultDeny: { ingress: true },
    log: { value: 'x' },
  });
  const junk = fc.oneof(
    fc.constantFrom<unknown>(
      null,
      undefined,
      '',
      '0',
      -1,
      1e9,
      true,
      [],
      {},
      [[]],
      '__proto__',
      'In',
      '::/0',
      '0.0.0.0/0',
      '\u202e',
    ),
    fc.string(),
  );
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.nat(200), junk), { minLength: 1, maxLength: 4 }), (mutations) => {
      const object = structuredClone(good) as object;
      for (const [at, value] of mutations) mutate(object, at, structuredClone(value));
      const { row, problems } = parseCiliumPolicy(object);
      if (row === undefined) assert.ok(problems.length > 0);
      else assert.equal(row.error !== undefined, problems.length > 0);
      for (const spec of row?.error === undefined ? [] : row.specs) {
        assert.deepEqual(spec.isolates, { ingress: true, egress: true });
        for (const rule of [...spec.ingress, ...spec.egress]) {
          assert.deepEqual([rule.action, rule.peers, rule.ports], ['deny', undefined, undefined]);
        }
      }
    }),
    { numRuns: Number(process.env.WEIR_MUTATIONS ?? 10_000) },
  );
});

/** Puts a value in place number `at` of an object, counted through all that is in it. */
function mutate(object: object, at: number, value: unknown): void {
  const places: [Record<string, unknown>, string][] = [];
  const walk = (inner: unknown): void => {
    if (typeof inner !== 'object' || inner === null) return;
    for (const key of Object.keys(inner)) {
      places.push([inner as Record<string, unknown>, key]);
      walk((inner as Record<string, unknown>)[key]);
    }
  };
  walk(object);
  const [target, key] = places[at % Math.max(1, places.length)] ?? [{}, 'x'];
  target[key] = value;
}

test('parseCiliumPolicy() remarks on entries without ports and on subjects that nobody is, and takes them as they are', () => {
  const read = (object: object) => {
    const { row, problems } = parseCiliumPolicy(object);
    assert.deepEqual(problems, []);
    return row!;
  };
  const denies = read(policy({ ingressDeny: [{ fromEntities: ['world'], toPorts: [{ ports: [] }] }] }));
  assert.deepEqual(denies.specs[0]!.ingress[0]!.ports, []);
  assert.deepEqual(denies.remarks, [
    'spec.ingressDeny[0].toPorts[0] names no ports, so that it denies nothing: to mean all ports leave toPorts out',
  ]);
  assert.match(read(policy({ egress: [{ toPorts: [{}] }] })).remarks!.join(), /^spec\.egress\[0\].* allows nothing/);
  const init = clusterwide({ endpointSelector: { matchLabels: { 'reserved:init': '' } }, egress: [{}] });
  assert.deepEqual(read(init).remarks, [
    'spec.endpointSelector asks for reserved:init and selects nobody: a pod whose labels are not known is closed',
  ]);
  const foreign = policy({ endpointSelector: { matchLabels: { 'container:a': 'b' } }, egress: [{}] });
  assert.match(read(foreign).remarks!.join(), /selects nobody: no pod has such a label/);
  assert.equal(read(policy({ egress: [{ toEntities: ['world'] }] })).remarks, undefined);
});
