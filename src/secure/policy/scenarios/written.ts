// NetworkPolicy by example, each with what a reader of the API's documentation would expect. Expectations are written
// by hand here; generated cases take theirs from the evaluator.
import type { Probe, Scenario } from './scenario.ts';
import { named, shop } from './shop.ts';

const allowed = (from: string, to: string, more: Partial<Probe> = {}): Probe => ({
  from,
  to,
  expect: 'allowed',
  ...more,
});
const noIngress = (from: string, to: string, more: Partial<Probe> = {}): Probe => ({
  from,
  to,
  expect: 'ingress denied',
  ...more,
});
const noEgress = (from: string, to: string, more: Partial<Probe> = {}): Probe => ({
  from,
  to,
  expect: 'egress denied',
  ...more,
});
const app = (name: string) => ({ matchLabels: { app: name } });
const anyPod = {};

/** All written scenarios. */
export const writtenScenarios: readonly Scenario[] = [
  {
    ...shop,
    name: 'without policies everything is allowed',
    policies: [],
    probes: [
      allowed('shop/web', 'data/db'),
      allowed('world', 'shop/web'),
      allowed('shop/web', 'world', { protocol: 'UDP', port: 53 }),
    ],
  },
  {
    ...shop,
    name: 'default deny ingress isolates every pod of its namespace and no other',
    policies: [{ ...named('shop', 'deny'), spec: { podSelector: anyPod } }],
    probes: [
      noIngress('data/db', 'shop/web'),
      noIngress('shop/cart', 'shop/web'),
      noIngress('world', 'shop/cart', { protocol: 'ICMP' }),
      noIngress('remote-node', 'shop/web'),
      allowed('shop/web', 'data/db'),
      allowed('data/db', 'ops/probe'),
    ],
  },
  {
    ...shop,
    name: 'a node always reaches its own pods',
    policies: [{ ...named('shop', 'deny'), spec: { podSelector: anyPod, policyTypes: ['Ingress', 'Egress'] } }],
    probes: [allowed('host', 'shop/web'), allowed('host', 'shop/web', { protocol: 'ICMP' })],
  },
  {
    ...shop,
    name: 'default deny egress leaves ingress open',
    policies: [{ ...named('shop', 'deny'), spec: { podSelector: anyPod, policyTypes: ['Egress'] } }],
    probes: [noEgress('shop/web', 'data/db'), noEgress('shop/web', 'world'), allowed('data/db', 'shop/web')],
  },
  {
    ...shop,
    name: 'an empty rule allows everything, ICMP too',
    policies: [{ ...named('shop', 'open'), spec: { podSelector: anyPod, ingress: [{}] } }],
    probes: [allowed('world', 'shop/web'), allowed('data/db', 'shop/web', { protocol: 'ICMP' })],
  },
  {
    ...shop,
    name: 'a pod selector alone means pods of the own namespace',
    policies: [
      { ...named('data', 'db'), spec: { podSelector: app('db'), ingress: [{ from: [{ podSelector: app('web') }] }] } },
    ],
    probes: [noIngress('shop/web', 'data/db'), allowed('shop/web', 'data/cache')],
  },
  {
    ...shop,
    name: 'pod and namespace selector in one entry must both hold',
    policies: [
      {
        ...named('data', 'db'),
        spec: {
          podSelector: app('db'),
          ingress: [{ from: [{ podSelector: app('web'), namespaceSelector: { matchLabels: { team: 'sales' } } }] }],
        },
      },
    ],
    probes: [allowed('shop/web', 'data/db'), noIngress('shop/cart', 'data/db'), noIngress('ops/probe', 'data/db')],
  },
  {
    ...shop,
    name: 'pod and namespace selector in two entries: either suffices',
    policies: [
      {
        ...named('data', 'db'),
        spec: {
          podSelector: app('db'),
          ingress: [
            { from: [{ podSelector: app('cache') }, { namespaceSelector: { matchLabels: { team: 'sales' } } }] },
          ],
        },
      },
    ],
    probes: [allowed('data/cache', 'data/db'), allowed('shop/cart', 'data/db'), noIngress('ops/probe', 'data/db')],
  },
  {
    ...shop,
    name: 'an empty namespace selector means pods of all namespaces, and nobody else',
    policies: [
      { ...named('data', 'db'), spec: { podSelector: app('db'), ingress: [{ from: [{ namespaceSelector: {} }] }] } },
    ],
    probes: [allowed('ops/probe', 'data/db'), noIngress('world', 'data/db'), noIngress('remote-node', 'data/db')],
  },
  {
    ...shop,
    name: 'matchExpressions: In, NotIn, Exists, DoesNotExist',
    policies: [
      {
        ...named('shop', 'expressions'),
        spec: {
          podSelector: { matchExpressions: [{ key: 'tier', operator: 'In', values: ['front', 'middle'] }] },
          ingress: [
            {
              from: [
                {
                  namespaceSelector: { matchExpressions: [{ key: 'access', operator: 'Exists' }] },
                  podSelector: { matchExpressions: [{ key: 'tier', operator: 'DoesNotExist' }] },
                },
                { podSelector: { matchExpressions: [{ key: 'app', operator: 'NotIn', values: ['mail'] }] } },
              ],
            },
          ],
        },
      },
    ],
    probes: [
      allowed('ops/probe', 'shop/web'),
      allowed('shop/cart', 'shop/web'),
      noIngress('shop/mail', 'shop/web'),
      noIngress('data/db', 'shop/web'),
      allowed('shop/mail', 'shop/cart'),
    ],
  },
  {
    ...shop,
    name: 'ports: numbers, a range with both ends, a protocol, and nothing else',
    policies: [
      {
        ...named('data', 'db'),
        spec: {
          podSelector: app('db'),
          ingress: [{ ports: [{ port: 5432 }, { protocol: 'UDP', port: 7000, endPort: 7010 }, { protocol: 'SCTP' }] }],
        },
      },
    ],
    probes: [
      allowed('shop/web', 'data/db', { port: 5432 }),
      noIngress('shop/web', 'data/db', { port: 5433 }),
      noIngress('shop/web', 'data/db', { protocol: 'UDP', port: 5432 }),
      allowed('shop/web', 'data/db', { protocol: 'UDP', port: 7000 }),
      allowed('shop/web', 'data/db', { protocol: 'UDP', port: 7010 }),
      noIngress('shop/web', 'data/db', { protocol: 'UDP', port: 7011 }),
      noIngress('shop/web', 'data/db', { protocol: 'UDP', port: 6999 }),
      noIngress('shop/web', 'data/db', { protocol: 'ICMP' }),
    ],
  },
  {
    ...shop,
    name: "a named port is each destination pod's own number, inwards and outwards",
    policies: [
      { ...named('shop', 'in'), spec: { podSelector: anyPod, ingress: [{ ports: [{ port: 'http' }] }] } },
      {
        ...named('ops', 'out'),
        spec: {
          podSelector: anyPod,
          policyTypes: ['Egress'],
          egress: [{ to: [{ namespaceSelector: {} }], ports: [{ port: 'http' }] }],
        },
      },
    ],
    probes: [
      allowed('data/db', 'shop/web', { port: 8080 }),
      allowed('data/db', 'shop/cart', { port: 9090 }),
      noIngress('data/db', 'shop/web', { port: 9090 }),
      noIngress('data/db', 'shop/mail', { port: 8080 }),
      allowed('ops/probe', 'shop/web', { port: 8080 }),
      allowed('ops/probe', 'shop/cart', { port: 9090 }),
      noEgress('ops/probe', 'shop/cart', { port: 8080 }),
      noEgress('ops/probe', 'data/db', { port: 8080 }),
    ],
  },
  {
    ...shop,
    name: 'an ipBlock matches pods and nodes by their addresses, except what it excepts',
    policies: [
      {
        ...named('shop', 'blocks'),
        spec: {
          podSelector: app('web'),
          ingress: [
            { from: [{ ipBlock: { cidr: '@data/db-8', except: ['@shop/cart'] } }, { ipBlock: { cidr: '@world' } }] },
          ],
        },
      },
    ],
    probes: [
      allowed('data/db', 'shop/web'),
      allowed('ops/probe', 'shop/web'),
      noIngress('shop/cart', 'shop/web'),
      noIngress('data/cache', 'shop/web'),
      allowed('world', 'shop/web'),
      noIngress('remote-node', 'shop/web'),
    ],
  },
  {
    ...shop,
    name: 'what one block excepts another rule may still allow: rules only add',
    policies: [
      {
        ...named('shop', 'blocks'),
        spec: {
          podSelector: app('web'),
          ingress: [{ from: [{ ipBlock: { cidr: '@shop/cart-8', except: ['@shop/cart'] } }] }],
        },
      },
      {
        ...named('shop', 'cart'),
        spec: { podSelector: app('web'), ingress: [{ from: [{ podSelector: app('cart') }], ports: [{ port: 81 }] }] },
      },
    ],
    probes: [noIngress('shop/cart', 'shop/web'), allowed('shop/cart', 'shop/web', { port: 81 })],
  },
  {
    ...shop,
    name: 'both ends must agree',
    policies: [
      {
        ...named('shop', 'out'),
        spec: { podSelector: app('web'), policyTypes: ['Egress'], egress: [{ ports: [{ port: 5432 }] }] },
      },
      {
        ...named('data', 'in'),
        spec: {
          podSelector: app('db'),
          ingress: [{ from: [{ namespaceSelector: { matchLabels: { team: 'sales' } } }] }],
        },
      },
    ],
    probes: [
      allowed('shop/web', 'data/db', { port: 5432 }),
      noEgress('shop/web', 'data/db', { port: 80 }),
      noIngress('ops/probe', 'data/db', { port: 5432 }),
    ],
  },
  {
    ...shop,
    name: 'policyTypes decides: rules of a direction it leaves out are ignored',
    policies: [
      {
        ...named('shop', 'ingress-only'),
        spec: { podSelector: app('web'), policyTypes: ['Ingress'], ingress: [{}], egress: [{ ports: [{ port: 1 }] }] },
      },
      { ...named('data', 'default'), spec: { podSelector: app('db'), egress: [{ ports: [{ port: 1 }] }] } },
    ],
    probes: [
      allowed('shop/web', 'data/cache'),
      noEgress('data/db', 'shop/web'),
      noIngress('shop/web', 'data/db', { port: 2 }),
    ],
  },
  {
    ...shop,
    name: 'a staged policy changes nothing',
    policies: [
      {
        metadata: { namespace: 'shop', name: 'staged', annotations: { 'weir.dev/enforcement': 'staged' } },
        spec: { podSelector: anyPod, policyTypes: ['Ingress', 'Egress'] },
      },
    ],
    probes: [allowed('data/db', 'shop/web'), allowed('shop/web', 'world')],
  },
];
