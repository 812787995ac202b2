// Rows for tests of services: short to write, complete to use.
import type { EndpointFacts, ServiceRow, ServiceSliceRow } from '../../core/rows.ts';
import type { NodeContext } from './derive-frontends.ts';

/** A Service with one TCP port 80. */
export function makeService(row: Partial<ServiceRow> & { readonly key: string }): ServiceRow {
  const [namespace = '', name = ''] = row.key.split('/');
  return {
    namespace,
    name,
    uid: `uid-${row.key}`,
    createdAt: '2026-01-01T00:00:00Z',
    type: 'ClusterIP',
    clusterIps: ['10.96.0.10'],
    externalIps: [],
    loadBalancerIps: [],
    ports: [{ name: '', protocol: 'TCP', port: 80 }],
    internalLocal: false,
    externalLocal: false,
    problems: [],
    ...row,
  };
}

/** An endpoint of a slice, in one piece. */
export interface SliceEndpoint extends EndpointFacts {
  readonly address: string;
}

/** A ready endpoint. */
export function makeEndpoint(row: Partial<SliceEndpoint> & { readonly address: string }): SliceEndpoint {
  const ready = row.ready ?? true;
  return { ready, serving: ready, terminating: false, weight: 1, ...row };
}

/** A slice of a Service of the same name, with port 8080. */
export function makeSlice(
  service: string,
  endpoints: readonly SliceEndpoint[],
  row: Partial<ServiceSliceRow> = {},
): ServiceSliceRow {
  return {
    key: `${service}-1`,
    service,
    namespace: service.split('/')[0]!,
    ports: [{ name: '', protocol: 'TCP', port: 8080 }],
    addresses: endpoints.map((each) => each.address),
    facts: endpoints.map(({ address: _, ...facts }) => facts),
    problems: [],
    ...row,
  };
}

/** Node `n1` of zone `z1`, where nobody owns any address but the node its own. */
export function makeNode(node: Partial<NodeContext> = {}): NodeContext {
  return {
    name: 'n1',
    zone: 'z1',
    addresses: new Set(['192.0.2.1', '2001:db8::1']),
    directReturn: [],
    namespaceOf: () => undefined,
    inMaintenance: () => false,
    refuseClaim: () => undefined,
    ...node,
  };
}
