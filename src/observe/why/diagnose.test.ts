import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { diagnose } from './diagnose.ts';
import type { WhyEvidence, WhyFlow } from './evidence.ts';

const nowMs = 1_000_000;
const from = {
  text: 'shop/cart',
  kind: 'pod',
  namespace: 'shop',
  name: 'cart',
  addresses: ['10.0.0.1'],
  node: 'n1',
  state: 'ready',
} as const;
const to = {
  text: 'shop/db',
  kind: 'pod',
  namespace: 'shop',
  name: 'db',
  addresses: ['10.0.0.2'],
  node: 'n2',
  state: 'ready',
} as const;

const flow = (given: Partial<WhyFlow>): WhyFlow => ({
  timeMs: nowMs - 10_000,
  node: 'n1',
  kind: 'begun',
  source: 'shop/cart',
  destination: 'shop/db',
  sourceAddress: '10.0.0.1',
  destinationAddress: '10.0.0.2',
  port: 5432,
  protocol: 'TCP',
  direction: 'egress',
  policies: [],
  summary: 'TCP Flags: SYN',
  ...given,
});
const closed = (given: Partial<WhyFlow> = {}) =>
  flow({ kind: 'ended', endCause: 'closed', closedBy: 'client', sent: 5, received: 4, ...given });
const drop = (reason: string, given: Partial<WhyFlow> = {}) => flow({ kind: 'dropped', reason, ...given });

const cause = (given: Partial<WhyEvidence>) =>
  diagnose({ nowMs, sinceMs: 0, from, to, port: 5432, flows: [], connections: [], nodes: [], ...given }).map(
    (each) => each.cause,
  );

test('each layer is known by what only it leaves behind', () => {
  const cases: [string, Partial<WhyEvidence>][] = [
    ['source-unknown', { from: { ...from, kind: 'unknown' } }],
    ['source-not-ready', { from: { ...from, state: 'waiting-for-identity' } }],
    ['destination-unknown', { to: { text: 'x/y', kind: 'unknown', addresses: [] } }],
    ['policy-egress', { flows: [drop('POLICY_DENIED')] }],
    ['policy-ingress', { flows: [drop('POLICY_DENIED', { direction: 'ingress', node: 'n2' })] }],
    [
      'name-server-denied',
      { to: { ...to, kind: 'name' }, flows: [drop('POLICY_DENIED', { port: 53, protocol: 'UDP' })] },
    ],
    ['service-without-backend', { to: { ...to, kind: 'service', backends: 2, serving: 0 } }],
    ['service-without-backend', { flows: [drop('SERVICE_BACKEND_NOT_FOUND', { service: 'shop/db' })] }],
    ['service-source-range', { flows: [drop('DENIED_BY_LB_SRC_RANGE_CHECK')] }],
    ['no-route', { flows: [drop('FIB_LOOKUP_FAILED')] }],
    ['no-such-pod', { flows: [drop('STALE_OR_UNROUTABLE_IP')] }],
    ['table-full', { flows: [drop('CT_MAP_INSERTION_FAILED')] }],
    ['table-full', { flows: [drop('NO_MAPPING_FOR_NAT_MASQUERADE')] }],
    ['dropped-invalid-packet-dropped', { flows: [drop('INVALID_PACKET_DROPPED')] }],
    ['no-answer', { flows: [flow({ kind: 'ended', endCause: 'no answer', sent: 6, received: 0 })] }],
    [
      'no-answer',
      {
        flows: [flow({})],
        connections: [
          {
            node: 'n1',
            state: 'opening',
            verdict: 'forwarded',
            packets: [3, 0],
            idleSeconds: 1,
            destinationPort: 5432,
          },
        ],
      },
    ],
    ['refused', { flows: [flow({ kind: 'ended', endCause: 'refused' })] }],
    ['reset-by-server', { flows: [flow({ kind: 'ended', endCause: 'reset', closedBy: 'server', received: 3 })] }],
    ['reset-by-client', { flows: [flow({ kind: 'ended', endCause: 'reset', closedBy: 'client', received: 3 })] }],
    ['mtu', { flows: [flow({ kind: 'icmp error', icmp: 'ICMPv6 PacketTooBig', source: 'fd00::1' })] }],
    ['unreachable', { flows: [flow({ kind: 'icmp error', icmp: 'ICMPv4 DestinationUnreachable (host)' })] }],
    ['node-problem', { nodes: [{ node: 'n2', reachable: true, problems: ['the map is full'] }] }],
    ['agent-silent', { nodes: [{ node: 'n2', reachable: false, problems: [] }] }],
    ['policy-would-deny', { policy: { allowed: false, text: ['denied'] } }],
    ['never-tried', { policy: { allowed: true, text: [] } }],
    ['works', { flows: [closed()] }],
  ];
  for (const [expected, given] of cases) assert.equal(cause(given)[0], expected, expected);
});

test('what failed and then worked, works; what worked and then failed, fails', () => {
  const early = { timeMs: nowMs - 60_000 };
  assert.deepEqual(cause({ flows: [drop('POLICY_DENIED', early), closed()] }), ['works']);
  assert.deepEqual(cause({ flows: [closed(early), drop('POLICY_DENIED')] }), ['policy-egress']);
  // One of two backends is broken: that the other works does not hide it.
  assert.deepEqual(
    cause({ flows: [flow({ kind: 'ended', endCause: 'refused', ...early }), closed({ destination: 'shop/other' })] }),
    ['refused'],
  );
});

test('a resolver tries domains: a name exists when one of them has it', () => {
  const ask = (query: string, given: Partial<WhyFlow>) =>
    flow({ kind: 'answer', query, port: 53, source: 'dns', destination: 'shop/cart', ...given });
  const tried = [
    ask('db.data.shop.svc.cluster.local.', { rcode: 'NXDOMAIN', answers: 0 }),
    ask('db.data.svc.cluster.local.', { rcode: 'NOERROR', answers: 1 }),
    ask('db.data.svc.cluster.local.', { rcode: 'NOERROR', answers: 0 }),
  ];
  const name = { text: 'db.data', kind: 'name', addresses: [] } as const;
  assert.deepEqual(cause({ to: name, flows: tried }), ['never-tried']);
  assert.deepEqual(cause({ to: name, flows: tried.slice(0, 1) }), ['name-not-found']);
  assert.deepEqual(cause({ to: undefined, flows: tried.slice(0, 1) }), ['name-not-found']);
  assert.deepEqual(cause({ to: name, flows: [ask('db.data.', { rcode: 'SERVFAIL', answers: 0 })] }), [
    'name-server-fails',
  ]);
  assert.deepEqual(
    cause({ to: name, flows: [ask('db.data.', { kind: 'question', source: 'shop/cart', destination: 'dns' })] }),
    ['name-server-silent'],
  );
  // A question of a moment ago may still be answered.
  assert.deepEqual(cause({ to: name, flows: [ask('db.data.', { kind: 'question', timeMs: nowMs - 100 })] }), [
    'never-tried',
  ]);
});

test('any evidence has an answer', () => {
  const kinds = ['begun', 'goes on', 'ended', 'dropped', 'question', 'answer', 'icmp error'] as const;
  const any = fc.record({
    kind: fc.constantFrom(...kinds),
    timeMs: fc.nat(nowMs),
    reason: fc.constantFrom('POLICY_DENIED', 'ODD', 'FIB_LOOKUP_FAILED'),
    endCause: fc.constantFrom(undefined, 'closed', 'reset', 'refused', 'no answer', 'expired'),
    query: fc.constantFrom(undefined, 'a.', 'b.c.'),
    rcode: fc.constantFrom('NOERROR', 'NXDOMAIN', 'REFUSED'),
    received: fc.nat(5),
  });
  fc.assert(
    fc.property(fc.array(any, { maxLength: 12 }), (list) => {
      const answers = cause({ flows: list.map((each) => flow(each as Partial<WhyFlow>)) });
      assert.ok(answers.length > 0);
    }),
  );
});
