// The tools for policies at scale: checking a thousand files, and comparing two sets of ten thousand policies.
// usage: policy-tools.ts [--json]
import { parseArgs } from 'node:util';
import { stringify } from 'yaml';
import { identityLabels, reservedIdentities, reservedIdentityRows } from '../src/core/identity.ts';
import type { AddressRow, IdentityRow, PolicyRow } from '../src/core/rows.ts';
import { diffPolicies } from '../src/secure/policy/diff/diff-policies.ts';
import type { PolicyModel } from '../src/secure/policy/evaluate.ts';
import { validatePolicies } from '../src/secure/policy/lint/validate.ts';
import { readManifests } from '../src/secure/policy/manifests/read-manifests.ts';
import { readPolicies } from '../src/secure/policy/read-policies.ts';
import { type Measure, median, printReport } from './report.ts';

const { values } = parseArgs({ options: { json: { type: 'boolean', default: false } } });
const count = 10_000;
const namespaces = 100;
const rounds = 3;

const namespaceOf = (i: number) => `ns-${i % namespaces}`;
const nearby = (i: number) => Array.from({ length: 10 }, (_, k) => (i + k * 100 + count) % count);

/** One policy for each app: ten others of its namespace may come in on a port, and it may go out to ten and to a block. */
function manifest(i: number, port: number): object {
  const peers = nearby(i).map((other) => ({ podSelector: { matchLabels: { app: `app-${other}` } } }));
  return {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name: `app-${i}`, namespace: namespaceOf(i) },
    spec: {
      podSelector: { matchLabels: { app: `app-${i}` } },
      policyTypes: ['Ingress', 'Egress'],
      ingress: [{ from: peers, ports: [{ protocol: 'TCP', port }] }],
      egress: [
        { to: peers, ports: [{ protocol: 'TCP', port: 8080 }] },
        { ports: [{ protocol: 'UDP', port: 53 }] },
        { to: [{ ipBlock: { cidr: `198.${18 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}/32` } }] },
      ],
    },
  };
}

function cluster(): Omit<PolicyModel, 'policies'> {
  const identities: IdentityRow[] = [...reservedIdentityRows()];
  const addresses: AddressRow[] = [];
  for (let i = 0; i < count; i++) {
    const namespace = namespaceOf(i);
    const labels = { app: `app-${i}` };
    identities.push({ id: 300 + i, labels: identityLabels({ namespace, serviceAccount: 'default', labels }) });
    for (const address of [`10.1.${i >> 8}.${i & 255}`, `fd00::${(i + 1).toString(16)}`]) {
      const pod = { kind: 'pod', namespace, pod: `app-${i}`, namedPorts: [], ifindex: 0, endpointId: 0 } as const;
      addresses.push({ ...pod, address, identity: 300 + i });
    }
  }
  return {
    identities,
    addresses,
    namespaces: Array.from({ length: namespaces }, (_, i) => ({ name: namespaceOf(i), labels: {} })),
    prefixes: [
      { cidr: '0.0.0.0/0', identity: reservedIdentities['world-ipv4'] },
      { cidr: '::/0', identity: reservedIdentities['world-ipv6'] },
    ],
  };
}

function timeMs(run: () => void): number {
  const times = Array.from({ length: rounds }, () => {
    const begin = performance.now();
    run();
    return performance.now() - begin;
  });
  return median(times);
}

const policies = (portOf: (i: number) => number): PolicyRow[] =>
  readPolicies(Array.from({ length: count }, (_, i) => manifest(i, portOf(i))));

const files = Array.from({ length: 1000 }, (_, i) => ({
  file: `policies/app-${i}.yaml`,
  text: stringify(manifest(i, 8080)),
}));
const pods = readManifests([
  {
    file: 'pods.yaml',
    text: Array.from({ length: 1000 }, (_, i) =>
      JSON.stringify({
        kind: 'Pod',
        metadata: { name: `app-${i}`, namespace: namespaceOf(i), labels: { app: `app-${i}` } },
      }),
    ).join('\n---\n'),
  },
]).manifests;

const base = cluster();
const before: PolicyModel = { ...base, policies: policies(() => 8080) };
const sets: Readonly<Record<string, PolicyModel>> = {
  'one policy in a hundred differs': { ...base, policies: policies((i) => (i % 100 === 0 ? 9090 : 8080)) },
  'every policy differs': { ...base, policies: policies(() => 9090) },
  'against none at all': { ...base, policies: [] },
};

const seconds = (measure: string, ms: number, goal: number, more: Partial<Measure> = {}): Measure => ({
  measure,
  unit: 's',
  median: ms / 1000,
  goal,
  ...more,
  met: ms / 1000 < goal ? 'yes' : 'no',
});

const measures = [
  seconds(
    'validate 1 000 files',
    timeMs(() => void validatePolicies(files)),
    3,
  ),
  seconds(
    'validate 1 000 files with 1 000 pods',
    timeMs(() => void validatePolicies(files, pods)),
    3,
  ),
];
for (const [name, after] of Object.entries(sets)) {
  let pairs = 0;
  const ms = timeMs(() => {
    const diff = diffPolicies(before, after);
    pairs = diff.nowAllowed + diff.nowDenied;
  });
  measures.push(
    seconds(`diff of 10 000 policies over 10 000 identities, ${name}`, ms, 10, { 'pairs that change': pairs }),
  );
}
printReport('policy-tools', measures, values.json!);
