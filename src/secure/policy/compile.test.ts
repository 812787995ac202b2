import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createFakeClock } from '../../core/clock.ts';
import type { AddressRow, IdentityRow, NamespaceRow, NetworkPolicyRow, PrefixRow } from '../../core/rows.ts';
import { createTable, type Table } from '../../core/table.ts';
import { createPolicyCompiler, type PolicyCompiler, type PolicyCompilerOptions } from './compile.ts';
import { applyDelta, type CompiledMaps, createCompiledMaps, lookupConnection } from './compiled-lookup.ts';
import { type Connection, evaluate, type PolicyModel, type Verdict } from './evaluate.ts';
import { arbitraryConnections, arbitraryModel } from './random-model.ts';

const runs = Number(process.env.WEIR_PROPERTY_RUNS ?? 150);

/** Tables, a compiler behind them, and maps behind that, as on a node. */
function createNode(options: PolicyCompilerOptions = {}) {
  const tables = {
    identities: createTable<IdentityRow>({ name: 'identities', key: (row) => row.id }),
    namespaces: createTable<NamespaceRow>({ name: 'namespaces', key: (row) => row.name }),
    addresses: createTable<AddressRow>({ name: 'addresses', key: (row) => row.address }),
    prefixes: createTable<PrefixRow>({ name: 'prefixes', key: (row) => row.cidr }),
    policies: createTable<NetworkPolicyRow>({ name: 'policies', key: (row) => row.key }),
  };
  const compiler = createPolicyCompiler({ clock: createFakeClock(), ...options });
  const maps = createCompiledMaps();
  const seen: Record<string, number> = {};
  const flush = () => {
    const changes: Record<string, unknown> = {};
    for (const [name, table] of Object.entries(tables) as [string, Table<unknown>][]) {
      changes[name] = table.changesSince(seen[name] ?? 0);
      seen[name] = table.revision;
    }
    const delta = compiler.update(changes);
    applyDelta(maps, delta);
    return delta;
  };
  return { tables, compiler, maps, flush };
}

type Node = ReturnType<typeof createNode>;

function setModel(node: Node, model: PolicyModel): void {
  node.tables.identities.replaceAll(model.identities);
  node.tables.namespaces.replaceAll(model.namespaces);
  node.tables.addresses.replaceAll(model.addresses);
  node.tables.prefixes.replaceAll(model.prefixes);
  node.tables.policies.replaceAll(model.policies);
}

/** The evaluator and the maps must agree at every end that is a pod of this node: verdict, staged verdict, reasons. */
function assertAgrees(
  model: PolicyModel,
  compiler: PolicyCompiler,
  maps: CompiledMaps,
  connections: Connection[],
): void {
  const local = new Set(model.addresses.filter((row) => row.endpointId > 0).map((row) => row.address));
  for (const connection of connections) {
    const wanted = evaluate(model, connection);
    const found = lookupConnection(maps, connection);
    for (const [direction, end] of [
      ['egress', connection.source] as const,
      ['ingress', connection.destination] as const,
    ]) {
      if (!local.has(end)) continue;
      const cookie = compiler.cookie(found[direction].cookie);
      const named = (cookie?.rules ?? []).map((rule) => `${rule.namespace}/${rule.name}/${rule.ruleIndex}`).sort();
      assert.deepEqual(
        { allowed: found[direction].allowed, staged: found[direction].stagedAllowed, named, why: cookie?.verdict },
        { allowed: wanted[direction].allowed, staged: wanted[direction].stagedAllowed, ...reasons(wanted[direction]) },
        `${direction} of ${JSON.stringify(connection)}`,
      );
    }
  }
}

function reasons(verdict: Verdict): { named: string[]; why: string | undefined } {
  const speakers = verdict.allowed ? verdict.allowedBy : verdict.isolatedBy;
  const named = speakers.map((rule) => `${rule.namespace}/${rule.name}/${rule.ruleIndex}`).sort();
  if (!verdict.allowed) return { named, why: 'default-deny' };
  return verdict.isolatedBy.length === 0 ? { named: [], why: undefined } : { named, why: 'allow' };
}

/** Rows without their numbers, so that compilers with different histories can be compared. */
function meaning(compiler: PolicyCompiler): unknown {
  const classes = new Map(
    [...compiler.classes()].map((row) => [row.class, JSON.stringify([row.identity, row.prefixes, row.namedPorts])]),
  );
  const rulesets = new Map<number, string[]>();
  for (const row of compiler.ports()) {
    const cookie = compiler.cookie(row.cookie);
    const text = JSON.stringify([
      row.protocol,
      row.port,
      row.prefixBits,
      row.allow,
      row.stagedAllow,
      cookie?.verdict,
      cookie?.rules,
    ]);
    rulesets.set(row.ruleset, [...(rulesets.get(row.ruleset) ?? []), text].sort());
  }
  const peers = [...compiler.peers()].map((row) =>
    JSON.stringify([classes.get(row.subject), row.direction, classes.get(row.peer), rulesets.get(row.ruleset)]),
  );
  const ipcache = [...compiler.ipcache()].map((row) =>
    JSON.stringify([row.address, classes.get(row.class), row.identity, row.ifindex, row.flags]),
  );
  return {
    classes: [...classes.values()].sort(),
    peers: peers.sort(),
    ipcache: ipcache.sort(),
    rulesets: rulesets.size,
  };
}

test('compiled rows agree with the evaluator', () => {
  fc.assert(
    fc.property(arbitraryModel, arbitraryConnections, (model, connections) => {
      const node = createNode();
      setModel(node, model);
      node.flush();
      assertAgrees(model, node.compiler, node.maps, connections);
    }),
    { numRuns: runs },
  );
});

test('compiled rows after any history of changes agree with the evaluator and equal those compiled from scratch', () => {
  fc.assert(
    fc.property(
      fc.array(arbitraryModel, { minLength: 2, maxLength: 5 }),
      arbitraryConnections,
      (models, connections) => {
        const node = createNode();
        for (const model of models) {
          setModel(node, model);
          node.flush();
          assertAgrees(model, node.compiler, node.maps, connections);
          const fresh = createNode();
          setModel(fresh, model);
          fresh.flush();
          assert.deepEqual(meaning(node.compiler), meaning(fresh.compiler));
        }
      },
    ),
    { numRuns: runs },
  );
});

test('compiled rows do not depend on the order in which things arrive', () => {
  fc.assert(
    fc.property(arbitraryModel, fc.infiniteStream(fc.nat(1000)), (model, random) => {
      const node = createNode();
      const steps = [
        ...model.identities.map((row) => () => node.tables.identities.upsert(row)),
        ...model.namespaces.map((row) => () => node.tables.namespaces.upsert(row)),
        ...model.addresses.map((row) => () => node.tables.addresses.upsert(row)),
        ...model.prefixes.map((row) => () => node.tables.prefixes.upsert(row)),
        ...model.policies.map((row) => () => node.tables.policies.upsert(row)),
      ];
      const order = steps.map((step) => ({ step, at: random.next().value! })).sort((a, b) => a.at - b.at);
      for (const { step, at } of order) {
        step();
        if (at % 2 === 0) node.flush();
      }
      node.flush();
      const fresh = createNode();
      setModel(fresh, model);
      fresh.flush();
      assert.deepEqual(meaning(node.compiler), meaning(fresh.compiler));
    }),
    { numRuns: runs },
  );
});

test('update() without changes writes nothing, and what it wrote is what it says should be there', () => {
  fc.assert(
    fc.property(fc.array(arbitraryModel, { minLength: 1, maxLength: 3 }), (models) => {
      const node = createNode();
      for (const model of models) {
        setModel(node, model);
        node.flush();
        const { peers, ports, ipcache, cookies } = node.flush();
        assert.deepEqual([peers, ports, ipcache, cookies], Array(4).fill({ upsert: [], delete: [] }));
        assert.deepEqual(
          [...node.maps.ports.values()].map((row) => JSON.stringify(row)).sort(),
          [...node.compiler.ports()].map((row) => JSON.stringify(row)).sort(),
        );
        assert.deepEqual(
          [...node.maps.peers.values()].map((row) => JSON.stringify(row)).sort(),
          [...node.compiler.peers()].map((row) => JSON.stringify(row)).sort(),
        );
        assert.deepEqual(
          [...node.maps.ipcache.values()].map((row) => JSON.stringify(row)).sort(),
          [...node.compiler.ipcache()].map((row) => JSON.stringify(row)).sort(),
        );
      }
    }),
    { numRuns: runs },
  );
});
