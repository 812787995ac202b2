// How long compiling policy takes on one node: all of it, then one change at a time.
// usage: policy-compile.ts [--policies N] [--json]
import { parseArgs } from 'node:util';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { identityLabels, reservedIdentityRows } from '../src/core/identity.ts';
import { type AddressRow, type IdentityRow, type PolicyRow, policyKey } from '../src/core/rows.ts';
import { createPolicyCompiler, type PolicyCompiler } from '../src/secure/policy/compile.ts';
import type { PolicyModel } from '../src/secure/policy/evaluate.ts';
import { modelChanges } from '../src/secure/policy/model-changes.ts';
import type { PolicyChanges, PolicyDelta } from '../src/secure/policy/policy-delta.ts';
import { inNamespace } from '../src/secure/policy/policy-reader.ts';
import { type Measure, printReport } from './report.ts';

const { values } = parseArgs({
  options: { policies: { type: 'string', default: '1000' }, json: { type: 'boolean', default: false } },
});
setFlagsFromString('--expose-gc');
const collectGarbage: () => void = runInNewContext('gc');
const policyCount = Number(values.policies);
const peersPerPolicy = 10;
const localPods = 100;
const rounds = 200;

/** 100 local pods of one identity; each policy allows them 10 peers on one port. */
function makeModel(peerIdentities: number): PolicyModel {
  const identities: IdentityRow[] = [...reservedIdentityRows()];
  const addresses: AddressRow[] = [];
  const add = (id: number, labels: Record<string, string>, pods: number, local: boolean): void => {
    identities.push({ id, labels: identityLabels({ namespace: 'bench', serviceAccount: 'default', labels }) });
    for (let i = 0; i < pods; i++) {
      const endpointId = local ? i + 1 : 0;
      const address = `10.${local ? 1 : 2}.${(addresses.length >> 8) & 255}.${addresses.length & 255}`;
      addresses.push({ address, identity: id, kind: 'pod', namedPorts: [], ifindex: endpointId, endpointId });
    }
  };
  add(256, { app: 'server' }, localPods, true);
  for (let i = 0; i < peerIdentities; i++) add(300 + i, { app: `peer-${i}` }, 1, false);
  const policies = Array.from({ length: policyCount }, (_, i) => makePolicy(i, 1000 + i, peerIdentities));
  return { identities, namespaces: [{ name: 'bench', labels: {} }], addresses, prefixes: [], policies };
}

function makePolicy(number: number, port: number, peerIdentities: number): PolicyRow {
  const peers = Array.from({ length: peersPerPolicy }, (_, i) => ({
    kind: 'endpoints' as const,
    selector: inNamespace(
      { matchLabels: { app: `peer-${(number * peersPerPolicy + i) % peerIdentities}` }, matchExpressions: [] },
      'bench',
    ),
  }));
  return {
    key: policyKey('NetworkPolicy', 'bench', `policy-${number}`),
    kind: 'NetworkPolicy',
    namespace: 'bench',
    name: `policy-${number}`,
    tier: 'normal',
    priority: 0,
    staged: false,
    subject: {
      kind: 'endpoints',
      selector: inNamespace({ matchLabels: { app: 'server' }, matchExpressions: [] }, 'bench'),
    },
    isolates: { ingress: true, egress: false },
    ingress: [
      {
        index: 0,
        list: 'ingress',
        action: 'allow',
        peers,
        ports: [{ kind: 'range', protocol: 6, first: port, last: port }],
      },
    ],
    egress: [],
  };
}

function change(table: keyof PolicyChanges, key: string | number, after?: unknown): PolicyChanges {
  return { [table]: { resync: false, changes: [{ key, ...(after !== undefined && { after }), revision: 1 }] } };
}

function measure(run: (round: number) => PolicyDelta): { p50Ms: number; p99Ms: number; rows: number } {
  const times: number[] = [];
  let rows = 0;
  for (let i = 0; i < rounds; i++) {
    const begin = performance.now();
    const delta = run(i);
    times.push(performance.now() - begin);
    const { ports, peers, ipcache } = delta;
    const written = [
      ports.upsert,
      ports.delete,
      peers.upsert,
      peers.close,
      peers.delete,
      ipcache.upsert,
      ipcache.delete,
    ];
    rows = Math.max(rows, written.flat().length);
  }
  times.sort((a, b) => a - b);
  return { p50Ms: times[rounds / 2]!, p99Ms: times[Math.floor(rounds * 0.99)]!, rows };
}

/** In a function of its own, so that nothing holds on to the compiler. */
function warmUp(changes: PolicyChanges): void {
  createPolicyCompiler().update(changes);
}

/** The bytes in use once everything that nobody holds is gone: some of it only after its finalizers have run. */
async function heapBytes(): Promise<number> {
  for (let i = 0; i < 3; i++) {
    collectGarbage();
    await new Promise((resolve) => setImmediate(resolve));
  }
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

/** What 100 000 pods of other nodes cost that have an address of each family. */
async function addressMiB(): Promise<number> {
  const rows: AddressRow[] = [];
  for (let i = 0; i < 100_000; i++) {
    const pod = { identity: 1_000 + (i % 2_000), kind: 'pod', namespace: 'bench', pod: `pod-${i}` } as const;
    const [high, low] = [i >> 8, i & 255];
    const address = { ...pod, namedPorts: [], ifindex: 0, endpointId: 0 };
    rows.push({ ...address, address: `10.${high >> 8}.${high & 255}.${low}` });
    rows.push({ ...address, address: `fd00:10:${(0x1000 + high).toString(16)}::${(1 + low).toString(16)}` });
  }
  const changes = rows.map((after) => ({ key: after.address, after, revision: 1 }));
  const before = await heapBytes();
  const compiler = createPolicyCompiler();
  compiler.update({ addresses: { resync: false, changes } });
  const bytes = (await heapBytes()) - before;
  const known = [...compiler.ipcache()].length;
  if (known !== rows.length) throw new Error(`${known} of ${rows.length} addresses are known`);
  return bytes / 2 ** 20;
}

async function bench(name: string, peerIdentities: number) {
  const model = makeModel(peerIdentities);
  const changes = modelChanges(model);
  warmUp(changes);
  const heapBefore = await heapBytes();
  const begin = performance.now();
  const compiler: PolicyCompiler = createPolicyCompiler();
  compiler.update(changes);
  const allMs = performance.now() - begin;
  const heapMiB = ((await heapBytes()) - heapBefore) / 2 ** 20;
  const upsert = (row: PolicyRow): PolicyDelta => compiler.update(change('policies', row.key, row));
  const pod = (i: number) => ({ ...model.addresses.at(-1)!, address: `10.3.0.${i}` });
  return {
    name,
    allMs,
    heapMiB,
    ports: [...compiler.ports()].length,
    peers: [...compiler.peers()].length,
    'change a policy': measure((i) => upsert(makePolicy(i % 10, 20_000 + i, peerIdentities))),
    'add a policy': measure((i) => upsert(makePolicy(policyCount + i, 30_000 + i, peerIdentities))),
    'delete a policy': measure((i) =>
      compiler.update(change('policies', policyKey('NetworkPolicy', 'bench', `policy-${policyCount + i}`))),
    ),
    'add a remote pod': measure((i) => compiler.update(change('addresses', `10.3.0.${i}`, pod(i)))),
  };
}

const results = [];
for (const [name, peers] of [
  ['10 000 peers, each in one policy', policyCount * peersPerPolicy],
  ['10 peers, each in all policies', 10],
] as const)
  results.push(await bench(name, peers));

const measures: Measure[] = results.flatMap(({ name, allMs, heapMiB, ports, peers, ...changesOf }) => {
  const within = (measure: string, unit: string, value: number, goal?: number, rival?: number): Measure => ({
    measure: `${measure}; ${name}`,
    unit,
    median: value,
    goal,
    rival,
    met: goal === undefined ? undefined : value < goal ? 'yes' : 'no',
  });
  return [
    within(`${policyCount} policies at once`, 'ms', allMs, 500, 30_000),
    within('heap for them', 'MiB', heapMiB, 30, 457),
    within('rows of peers', '', peers),
    within('rows of ports', '', ports),
    ...Object.entries(changesOf).flatMap(([what, { p50Ms, p99Ms, rows }]) => [
      within(`${what}, p50`, 'ms', p50Ms, 5, 45),
      within(`${what}, p99`, 'ms', p99Ms),
      within(`${what}, most rows written`, '', rows),
    ]),
  ];
});
const addresses = await addressMiB();
measures.push({
  measure: 'memory for the addresses of 100 000 dual-stack pods',
  unit: 'MiB',
  median: addresses,
  goal: 40,
  met: addresses < 40 ? 'yes' : 'no',
});
printReport('policy-compile', measures, values.json!);
