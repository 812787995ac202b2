// A small shop in three namespaces that all written scenarios share: only their policies and probes differ.
import type { Scenario } from './scenario.ts';

const http = { name: 'http', protocol: 'TCP', port: 8080 } as const;

/** The namespaces and pods. */
export const shop: Pick<Scenario, 'namespaces' | 'pods'> = {
  namespaces: {
    shop: { 'kubernetes.io/metadata.name': 'shop', team: 'sales' },
    data: { 'kubernetes.io/metadata.name': 'data', team: 'storage' },
    ops: { 'kubernetes.io/metadata.name': 'ops', team: 'platform', access: 'all' },
  },
  pods: {
    'shop/web': { labels: { app: 'web', tier: 'front' }, ports: [http] },
    'shop/cart': { labels: { app: 'cart', tier: 'back' }, ports: [{ name: 'http', protocol: 'TCP', port: 9090 }] },
    'shop/mail': { labels: { app: 'mail', tier: 'back' }, node: 2 },
    'data/db': { labels: { app: 'db' }, ports: [{ name: 'sql', protocol: 'TCP', port: 5432 }] },
    'data/cache': { labels: { app: 'cache' }, ports: [{ name: 'cache', protocol: 'UDP', port: 6000 }], node: 2 },
    'ops/probe': { labels: { app: 'probe' } },
  },
};

/** The head of a policy in a namespace. */
export function named(namespace: string, name: string): { metadata: { namespace: string; name: string } } {
  return { metadata: { namespace, name } };
}
