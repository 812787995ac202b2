import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { reservedIdentities } from '../../core/identity.ts';
import type { EndpointRow } from '../../core/rows.ts';
import { createTable } from '../../core/table.ts';
import { weirEndpointSliceSchema } from '../../kube/weir/schemas.ts';
import { createSliceDerivation, type SliceRow, sliceSize } from './own-slices.ts';

const endpoint = (id: number, identity = 300): EndpointRow => ({
  id,
  containerId: `c${id}`,
  namespace: 'shop',
  pod: `pod${id}`,
  interfaceName: 'eth0',
  ifindex: id,
  ipv4: `10.0.${id >> 8}.${id & 255}`,
  mac: '',
  identity,
  labels: {},
  namedPorts: [{ name: 'http', protocol: 'TCP', port: 80 }],
  workload: { kind: 'Deployment', name: 'web' },
  state: 'ready',
  netns: '',
  createdAtMs: 0,
});

function setUp() {
  const endpoints = createTable<EndpointRow>({ name: 'endpoints', key: (row) => row.id, historyLimit: 16 });
  const slices = createTable<SliceRow>({ name: 'slices', key: (row) => row.name });
  return { endpoints, slices, derivation: createSliceDerivation(endpoints, slices, 'n1') };
}

test('a change rewrites one slice', () => {
  const { endpoints, slices, derivation } = setUp();
  endpoints.upsert(Array.from({ length: 100 }, (_, i) => endpoint(i + 1)));
  derivation.run();
  assert.equal(slices.size, Math.ceil(100 / sliceSize));
  const revision = slices.revision;
  endpoints.upsert(endpoint(50, 301));
  derivation.run();
  assert.deepEqual(
    slices.changesSince(revision).changes.map((change) => change.key),
    ['n1-1'],
  );
});

test('a pod without an identity is told to nobody, and is taken back when it loses its own', () => {
  const { endpoints, slices, derivation } = setUp();
  endpoints.upsert(endpoint(1, reservedIdentities.init));
  derivation.run();
  assert.equal(slices.size, 0);
  endpoints.upsert(endpoint(1));
  derivation.run();
  assert.equal(slices.size, 1);
  endpoints.upsert(endpoint(1, reservedIdentities.init));
  derivation.run();
  assert.equal(slices.size, 0);
});

test('the slices together are always the endpoints, none is too large, and each passes the schema', () => {
  const step = fc.record({
    id: fc.integer({ min: 1, max: 90 }),
    identity: fc.constantFrom(300, 301, reservedIdentities.init),
    remove: fc.boolean(),
    run: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 150 }), (steps) => {
      const { endpoints, slices, derivation } = setUp();
      for (const { id, identity, remove, run } of steps) {
        if (remove) endpoints.delete(id);
        else endpoints.upsert(endpoint(id, identity));
        if (run) derivation.run();
      }
      derivation.run();
      const wanted = [...endpoints.rows()].filter((row) => row.identity !== reservedIdentities.init);
      const told = [...slices.rows()].flatMap((slice) => slice.endpoints);
      const text = (rows: readonly { id: number; identity: number; ipv4?: string }[]) =>
        rows.map((row) => `${row.id} ${row.identity} ${row.ipv4}`).sort();
      assert.deepEqual(text(told), text(wanted));
      for (const slice of slices.rows()) {
        assert.ok(slice.endpoints.length > 0 && slice.endpoints.length <= sliceSize);
        assert.deepEqual(weirEndpointSliceSchema.parse(slice).endpoints, slice.endpoints);
      }
    }),
    { numRuns: 100 },
  );
});
