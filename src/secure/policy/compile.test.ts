import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createFakeClock } from '../../core/clock.ts';
import { podOfIdentity, reservedIdentityRows } from '../../core/identity.ts';
import { everything } from '../../core/labels.ts';
import {
  type AddressRow,
  type IdentityRow,
  type NamespaceRow,
  type PolicyRow,
  type PolicyRule,
  type PrefixRow,
  protocolNumbers,
} from '../../core/rows.ts';
import { createTable, type Table } from '../../core/table.ts';
import { assertAgrees } from './agreement.ts';
import { createPolicyCompiler, type PolicyCompiler, type PolicyCompilerOptions } from './compile.ts';
import { applyDelta, type CompiledVerdict, createCompiledMaps, lookupConnection } from './compiled-lookup.ts';
import type { PolicyModel } from './evaluate.ts';
import { modelChanges } from './model-changes.ts';
import { arbitraryConnections, arbitraryModel } from './random-model.ts';

const runs = Number(process.env.WEIR_PROPERTY_RUNS ?? 150);

/** Tables, a compiler behind them, and maps behind that, as on a node. */
function createNode(options: PolicyCompilerOptions = {}) {
  const tables = {
    identities: createTable<IdentityRow>({ name: 'identities', key: (row) => row.id }),
    namespaces: createTable<NamespaceRow>({ name: 'namespaces', key: (row) => row.name }),
    addresses: createTable<AddressRow>({ name: 'addresses', key: (row) => row.address }),
    prefixes: createTable<PrefixRow>({ name: 'prefixes', key: (row) => row.cidr }),
    policies: createTable<PolicyRow>({ name: 'policies', key: (row) => row.key }),
  };
  const compiler = createPolicyCompiler({ clock: createFakeClock(), ...options });
  const maps = createCompiledMaps();
  const seen: Record<string, number> = {};
  const flush = (step?: () => void) => {
    const changes: Record<string, unknown> = {};
    for (const [name, table] of Object.entries(tables) as [string, Table<unknown>][]) {
      changes[name] = table.changesSince(seen[name] ?? 0);
      seen[name] = table.revision;
    }
    const delta = compiler.update(changes);
    applyDelta(maps, delta, step);
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

function modelOf({ tables }: Node): PolicyModel {
  const { identities, namespaces, addresses, prefixes, policies } = tables;
  return {
    identities: [...identities.rows()],
    namespaces: [...namespaces.rows()],
    addresses: [...addresses.rows()],
    prefixes: [...prefixes.rows()],
    policies: [...policies.rows()],
  };
}

/** Rows without their numbers, so that compilers with different histories can be compared. */
function meaning(compiler: PolicyCompiler): unknown {
  const classes = new Map(
    [...compiler.classes()].map((row) => [
      row.class,
      JSON.stringify([row.identity, row.apiServer, row.prefixes, row.namedPorts]),
    ]),
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

test('compiled rows after small edits agree with the evaluator and equal those compiled from scratch', () => {
  const tables = ['policies', 'policies', 'policies', 'addresses', 'identities', 'namespaces', 'prefixes'] as const;
  const edit = fc.record({ table: fc.constantFrom(...tables), puts: fc.boolean(), at: fc.nat(100) });
  const pool = fc.array(arbitraryModel, { minLength: 4, maxLength: 4 });
  fc.assert(
    fc.property(
      pool,
      fc.array(edit, { minLength: 4, maxLength: 12 }),
      arbitraryConnections,
      (models, edits, connections) => {
        const node = createNode();
        setModel(node, models[0]!);
        node.flush();
        for (const { table, puts, at } of edits) {
          const target = node.tables[table] as Table<unknown>;
          const rows: readonly unknown[] = puts
            ? models.flatMap((model): readonly unknown[] => model[table])
            : [...target.rows()];
          const row = rows[at % Math.max(1, rows.length)];
          if (row === undefined) continue;
          // The blocks of the world are always there.
          if (table === 'prefixes' && !puts && String(target.keyOf(row)).endsWith('/0')) continue;
          if (puts) target.upsert(row);
          else target.delete(target.keyOf(row));
          node.flush();
          const model = modelOf(node);
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
        assert.deepEqual(peers, { upsert: [], close: [], delete: [] });
        assert.deepEqual([ports, ipcache, cookies], Array(3).fill({ upsert: [], delete: [] }));
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

test('while the delta of one added or removed row is written, no verdict appears that is neither the old nor the new', () => {
  const tables = ['policies', 'policies', 'addresses'] as const;
  const change = fc.record({ table: fc.constantFrom(...tables), adds: fc.boolean(), at: fc.nat(100) });
  fc.assert(
    fc.property(arbitraryModel, change, arbitraryConnections, (given, { table, adds, at }, connections) => {
      const model = withoutReclassing(given);
      const rows: readonly unknown[] = model[table];
      const less = { ...model, [table]: rows.filter((_, i) => i !== at % Math.max(1, rows.length)) };
      const [first, second] = adds ? [less, model] : [model, less];
      const node = createNode();
      setModel(node, first);
      node.flush();
      const verdicts = () => connections.map((connection) => lookupConnection(node.maps, connection));
      const before = verdicts();
      setModel(node, second);
      const between: ReturnType<typeof verdicts>[] = [];
      node.flush(() => between.push(verdicts()));
      const after = verdicts();
      for (const [step, found] of between.entries()) {
        for (const [i, { egress, ingress }] of found.entries()) {
          for (const [end, { allowed }] of Object.entries({ egress, ingress }) as ['egress', CompiledVerdict][]) {
            const fits = allowed === before[i]![end].allowed || allowed === after[i]![end].allowed;
            assert.ok(fits, `step ${step}: ${end} of ${JSON.stringify(connections[i])}`);
          }
        }
      }
    }),
    { numRuns: runs },
  );
});

test('numbers stay when what they stand for stays, across a restart too', () => {
  fc.assert(
    fc.property(arbitraryModel, arbitraryModel, (first, second) => {
      const node = createNode();
      setModel(node, first);
      node.flush();
      setModel(node, second);
      node.flush();
      const state = JSON.parse(JSON.stringify(node.compiler.export()));
      const again = createNode({ state });
      setModel(again, second);
      again.flush();
      assert.deepEqual(sorted(again.maps.peers), sorted(node.maps.peers));
      assert.deepEqual(sorted(again.maps.ports), sorted(node.maps.ports));
      assert.deepEqual(sorted(again.maps.ipcache), sorted(node.maps.ipcache));
    }),
    { numRuns: runs },
  );
});

test('a ruleset number never changes its content, nor a cookie, while it may still be in use', () => {
  fc.assert(
    fc.property(fc.array(arbitraryModel, { minLength: 2, maxLength: 8 }), (models) => {
      const node = createNode();
      const rulesets = new Map<number, string>();
      const cookies = new Map<number, string>();
      for (const model of models) {
        setModel(node, model);
        const delta = node.flush();
        for (const row of delta.cookies.upsert) {
          assert.equal(cookies.get(row.cookie) ?? JSON.stringify(row), JSON.stringify(row));
          cookies.set(row.cookie, JSON.stringify(row));
        }
        const found = new Map<number, string[]>();
        for (const row of node.compiler.ports())
          found.set(row.ruleset, [...(found.get(row.ruleset) ?? []), JSON.stringify(row)].sort());
        for (const [number, rows] of found) {
          assert.equal(rulesets.get(number) ?? rows.join(), rows.join());
          rulesets.set(number, rows.join());
        }
      }
    }),
    { numRuns: runs },
  );
});

test('`above` keeps new numbers clear of what an unexplained kernel map holds', () => {
  const node = createNode({ above: { class: 1000, ruleset: 2000, cookie: 3000 } });
  const [model] = fc.sample(arbitraryModel, { numRuns: 1, seed: 7 });
  setModel(node, model!);
  const delta = node.flush();
  assert.ok(delta.classes.upsert.every((row) => row.class > 1000));
  assert.ok(delta.ports.upsert.every((row) => row.ruleset > 2000 || row.ruleset === 1));
  assert.ok(delta.cookies.upsert.every((row) => row.cookie > 3000));
});

/** The highest numbers in a node's maps, and the classes of its addresses, as an agent finds them in the kernel. */
function foundIn({ maps }: Node): Pick<PolicyCompilerOptions, 'above' | 'inKernel'> {
  const peers = [...maps.peers.values()];
  const most = (numbers: number[]) => Math.max(0, ...numbers);
  return {
    above: {
      class: most([
        ...[...maps.ipcache.values()].map((row) => row.class),
        ...peers.flatMap((row) => [row.subject, row.peer]),
      ]),
      ruleset: most([...peers.map((row) => row.ruleset), ...[...maps.ports.values()].map((row) => row.ruleset)]),
      cookie: most([...maps.ports.values()].map((row) => row.cookie)),
    },
    inKernel: () => [...maps.ipcache].map(([address, row]) => [address, row.class] as const),
  };
}

test('when the numbers are lost, classes keep those that they have in the kernel', () => {
  fc.assert(
    fc.property(arbitraryModel, (model) => {
      const node = createNode();
      setModel(node, model);
      node.flush();
      const again = createNode(foundIn(node));
      setModel(again, model);
      again.flush();
      assert.deepEqual(sorted(again.maps.ipcache), sorted(node.maps.ipcache));
      const withoutRulesets = (maps: Node['maps']) => sorted(maps.peers).map((entry) => (entry as [string])[0]);
      assert.deepEqual(withoutRulesets(again.maps), withoutRulesets(node.maps));
    }),
    { numRuns: runs },
  );
});

test('what became another class meanwhile does not get the number of those that it was one with', () => {
  fc.assert(
    fc.property(arbitraryModel, arbitraryModel, arbitraryConnections, (before, after, connections) => {
      const node = createNode();
      setModel(node, before);
      node.flush();
      const again = createNode(foundIn(node));
      setModel(again, after);
      again.flush();
      assertAgrees(after, again.compiler, again.maps, connections);
      const now = new Map([...again.maps.ipcache].map(([address, row]) => [address, row.class]));
      const classes = new Map([...again.compiler.classes()].map((row) => [row.class, JSON.stringify(row)]));
      const inKernel = Map.groupBy(node.maps.ipcache, ([, row]) => row.class);
      for (const [number, rows] of inKernel) {
        if (!classes.has(number)) continue;
        // Whoever had the number in the kernel and is still known has it now.
        for (const [address] of rows) assert.ok([number, undefined].includes(now.get(address)), address);
      }
    }),
    { numRuns: runs },
  );
});

test('churn leaves nothing behind once numbers have rested', async () => {
  const clock = createFakeClock();
  const node = createNode({ clock, restMs: 1000 });
  const models = fc.sample(arbitraryModel, { numRuns: 60, seed: 11 });
  const size = () => JSON.stringify(node.compiler.export()).length + [...node.compiler.cookies()].length;
  let most = 0;
  for (let round = 0; round < 5; round++) {
    for (const model of models) {
      setModel(node, model);
      node.flush();
      await clock.advance(100);
      if (round === 1) most = Math.max(most, size());
      if (round > 1) assert.ok(size() <= most * 1.2, `round ${round}: ${size()} bytes, ${most} before`);
    }
  }
  for (const table of Object.values(node.tables)) table.replaceAll([]);
  node.flush();
  await clock.advance(2000);
  node.flush();
  assert.deepEqual([...node.compiler.cookies()], []);
  const { classes, rulesets, cookies } = node.compiler.export();
  assert.deepEqual([classes.numbers, rulesets.numbers, cookies.numbers], [[], [], []]);
  assert.deepEqual([node.maps.peers.size, node.maps.ipcache.size, node.maps.ports.size], [0, 0, 1]);
});

function sorted(map: ReadonlyMap<string, unknown>): unknown[] {
  return [...map].sort(([a], [b]) => (a < b ? -1 : 1));
}

/** Without blocks and port names policies do not part addresses into classes. */
function withoutReclassing(model: PolicyModel): PolicyModel {
  const plain = (rules: readonly PolicyRule[]): PolicyRule[] =>
    rules.map(({ peers, ports, ...rest }) => ({
      ...rest,
      ...(peers && {
        peers: peers.map((peer) => (peer.kind === 'block' ? { kind: 'endpoints', selector: everything } : peer)),
      }),
      ...(ports && {
        ports: ports.map((port) =>
          port.kind === 'named' ? { kind: 'all', protocol: protocolNumbers[port.protocol] } : port,
        ),
      }),
    }));
  const policies = model.policies.map((row) => ({ ...row, ingress: plain(row.ingress), egress: plain(row.egress) }));
  return { ...model, policies };
}

test('a denial that spares the pod’s own node is not found in the rows for everybody', () => {
  const labels = ['k8s:io.cilium.k8s.policy.cluster=default', 'k8s:io.kubernetes.pod.namespace=c'];
  const here = { namedPorts: [], endpointId: 3, ifindex: 3 };
  const model: PolicyModel = {
    identities: [...reservedIdentityRows(), { id: 261, labels }],
    namespaces: [],
    addresses: [
      { ...here, address: '10.0.0.9', identity: 261, kind: 'pod' },
      { ...here, address: '192.168.0.1', identity: 1, kind: 'host', endpointId: 0, ifindex: 0 },
    ],
    prefixes: [
      { cidr: '0.0.0.0/0', identity: 9 },
      { cidr: '::/0', identity: 10 },
    ],
    policies: [
      {
        key: 'CiliumNetworkPolicy/c/p0',
        kind: 'CiliumNetworkPolicy',
        namespace: 'c',
        name: 'p0',
        tier: 'normal',
        priority: 0,
        staged: false,
        subject: { kind: 'endpoints', selector: { matchLabels: {}, matchExpressions: [] } },
        isolates: { ingress: false, egress: false },
        ingress: [
          { action: 'allow', list: 'ingress', index: 0 },
          {
            action: 'deny',
            ports: [{ kind: 'all', protocol: 47 }],
            sparesOwnNode: 'always',
            list: 'ingressDeny',
            index: 0,
          },
        ],
        egress: [],
      },
    ],
  };
  const compiler = createPolicyCompiler();
  const maps = createCompiledMaps();
  applyDelta(maps, compiler.update(modelChanges(model)));
  for (const protocol of [47, 6])
    assertAgrees(model, compiler, maps, [{ source: '192.168.0.1', destination: '10.0.0.9', protocol, port: 0 }]);
});

test('a ruleset belongs to the namespace whose policies it is made of, and only pods of that use it', () => {
  fc.assert(
    fc.property(arbitraryModel, (model) => {
      const node = createNode();
      setModel(node, model);
      const owners = new Map(node.flush().rulesetOwners);
      for (const row of node.compiler.ports())
        for (const { namespace } of node.compiler.cookie(row.cookie)?.rules ?? [])
          if (namespace !== '') assert.equal(owners.get(row.ruleset), namespace);
      const identities = new Map([...node.compiler.classes()].map((row) => [row.class, row.identity]));
      const labels = new Map(model.identities.map((row) => [row.id, row.labels]));
      for (const { subject, ruleset } of node.compiler.peers()) {
        const owner = owners.get(ruleset);
        if (owner) assert.equal(podOfIdentity(labels.get(identities.get(subject)!)!)?.namespace, owner);
      }
    }),
    { numRuns: runs },
  );
});
