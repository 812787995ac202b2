import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { AddressRow, IdentityRow, NamespaceRow, NetworkPolicyRow, PrefixRow } from '../../core/rows.ts';
import { createTable } from '../../core/table.ts';
import { createPolicyCompiler } from './compile.ts';
import { applyDelta, createCompiledMaps, lookupConnection } from './compiled-lookup.ts';
import { plannedAddresses, probeConnection, scenarioModel } from './scenarios/scenario.ts';
import { shop } from './scenarios/shop.ts';
import { watchPolicy } from './watch-policy.ts';

test('watchPolicy() waits for all sources, then compiles each round of changes once', async () => {
  const sources = {
    identities: createTable<IdentityRow>({ name: 'identities', key: (row) => row.id }),
    namespaces: createTable<NamespaceRow>({ name: 'namespaces', key: (row) => row.name }),
    addresses: createTable<AddressRow>({ name: 'addresses', key: (row) => row.address }),
    prefixes: createTable<PrefixRow>({ name: 'prefixes', key: (row) => row.cidr }),
    policies: createTable<NetworkPolicyRow>({ name: 'policies', key: (row) => row.key }),
  };
  const maps = createCompiledMaps();
  let written = 0;
  const watch = watchPolicy(sources, createPolicyCompiler(), (delta) => {
    written++;
    applyDelta(maps, delta);
  });
  const addresses = plannedAddresses(shop, 4);
  const deny = { metadata: { namespace: 'data', name: 'deny' }, spec: { podSelector: {} } };
  const model = scenarioModel({ ...shop, policies: [deny] }, addresses);
  sources.identities.replaceAll(model.identities);
  sources.namespaces.replaceAll(model.namespaces);
  sources.addresses.replaceAll(model.addresses);
  sources.prefixes.replaceAll(model.prefixes);
  const { identities, namespaces, prefixes, policies } = sources;
  for (const table of [identities, namespaces, sources.addresses, prefixes]) table.markInitialized();
  await Promise.resolve();
  assert.deepEqual([written, watch.complete], [0, false]);
  policies.markInitialized();
  await Promise.resolve();
  assert.deepEqual([written, watch.complete], [1, true]);

  const connection = probeConnection({ from: 'shop/web', to: 'data/db' }, addresses);
  assert.equal(lookupConnection(maps, connection).ingress.allowed, true);
  policies.replaceAll(model.policies);
  namespaces.upsert({ name: 'more', labels: {} });
  await Promise.resolve();
  assert.equal(written, 2);
  assert.equal(lookupConnection(maps, connection).ingress.allowed, false);
  watch.stop();
  policies.replaceAll([]);
  await Promise.resolve();
  assert.equal(written, 2);
});
