import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { PolicyObjectRow, PolicyRow } from '../../../core/rows.ts';
import { diffPolicies } from '../diff/diff-policies.ts';
import { evaluate, type PolicyModel } from '../evaluate.ts';
import { parsePolicy } from '../parse-policy.ts';
import { inNamespace } from '../policy-reader.ts';
import { arbitraryConnections, arbitraryModel } from '../random-model.ts';
import { emptyContext, resolvePolicy } from '../resolve-policy.ts';
import { convertPolicy, type WrittenKind } from './convert-policy.ts';

const kinds: readonly WrittenKind[] = [
  'NetworkPolicy',
  'CiliumNetworkPolicy',
  'CiliumClusterwideNetworkPolicy',
  'ClusterNetworkPolicy',
];

/** A model whose namespaces have the label with their name, as the API server gives it. */
const models = arbitraryModel.map(
  (model): PolicyModel => ({
    ...model,
    namespaces: ['a', 'b', 'c'].map((name) => ({
      name,
      labels: { ...model.namespaces.find((row) => row.name === name)?.labels, 'kubernetes.io/metadata.name': name },
    })),
  }),
);

/** Policies of a namespace select in it: parsers write that into their selectors. Only closed ones spare anybody. */
function asParsed(given: PolicyRow): PolicyRow {
  const row = { ...given, ingress: given.ingress.map(({ sparesOwnNode: _, ...rule }) => rule) };
  if (row.namespace === '' || row.subject.kind === 'node') return row;
  return { ...row, subject: { kind: 'endpoints', selector: inNamespace(row.subject.selector, row.namespace) } };
}

const converted = { lossless: 0, lossy: 0 };

test('convertPolicy() changes no verdict where it says that nothing is lost', () => {
  fc.assert(
    fc.property(models, fc.constantFrom(...kinds), arbitraryConnections, (model, kind, connections) => {
      for (const each of model.policies) {
        const row = asParsed(each);
        const { staged: _, ...spec } = row;
        const object: PolicyObjectRow = { ...row, enforcement: 'enforced', specs: [spec], unenforced: [] };
        if (row.subject.kind === 'node') continue;
        const { manifests, losses } = convertPolicy(object, kind, {}, 'a');
        const parsed = manifests.map((each) => parsePolicy(each)!);
        if (losses.length > 0) {
          converted.lossy++;
          continue;
        }
        converted.lossless++;
        for (const { problems } of parsed) assert.deepEqual(problems, [], JSON.stringify(manifests));
        const rows = parsed.flatMap((each) => resolvePolicy(each.row!, emptyContext));
        const before = { ...model, policies: [{ ...row, staged: false }] };
        const after = { ...model, policies: rows.map((each) => ({ ...each, staged: false })) };
        assert.deepEqual(diffPolicies(before, after).groups, [], JSON.stringify([row, manifests]));
        for (const connection of connections) {
          const [was, is] = [evaluate(before, connection), evaluate(after, connection)];
          assert.deepEqual([was.egress.allowed, was.ingress.allowed], [is.egress.allowed, is.ingress.allowed]);
        }
      }
    }),
    { numRuns: 200 },
  );
  assert.ok(converted.lossless > 30, JSON.stringify(converted));
});

const cilium = (spec: object) => ({ kind: 'CiliumNetworkPolicy', metadata: { name: 'x', namespace: 'shop' }, spec });

test('convertPolicy() says what would be lost, and where', () => {
  const row = parsePolicy(
    cilium({
      endpointSelector: {},
      ingress: [{ fromEntities: ['host'] }, { icmps: [{ fields: [{ type: 8 }] }] }],
      egressDeny: [{ toCIDR: ['10.0.0.0/8'] }],
    }),
  )!.row!;
  assert.deepEqual(convertPolicy(row, 'NetworkPolicy', {}).losses, [
    { path: 'spec.ingress[0]', why: 'a NetworkPolicy does not know entities: the peer is left out' },
    { path: 'spec.ingress[1]', why: 'a NetworkPolicy knows TCP, UDP and SCTP: protocol 1 is left out' },
    { path: 'spec.egressDeny[0]', why: 'a NetworkPolicy denies nothing: without the rule it may be allowed' },
  ]);
  assert.deepEqual(convertPolicy(row, 'CiliumClusterwideNetworkPolicy', {}).losses, []);
});

test('convertPolicy() writes a NetworkPolicy as a person would write the CiliumNetworkPolicy', () => {
  const row = parsePolicy({
    kind: 'NetworkPolicy',
    metadata: { name: 'db', namespace: 'shop' },
    spec: {
      podSelector: { matchLabels: { app: 'db' } },
      ingress: [{ from: [{ podSelector: { matchLabels: { app: 'web' } } }], ports: [{ port: 5432 }] }],
      policyTypes: ['Ingress', 'Egress'],
    },
  })!.row!;
  assert.deepEqual(convertPolicy(row, 'CiliumNetworkPolicy', {}).manifests, [
    {
      apiVersion: 'cilium.io/v2',
      kind: 'CiliumNetworkPolicy',
      metadata: { name: 'db', namespace: 'shop' },
      spec: {
        endpointSelector: { matchLabels: { app: 'db' } },
        ingress: [
          {
            fromEndpoints: [{ matchLabels: { app: 'web', 'io.kubernetes.pod.namespace': 'shop' } }],
            toPorts: [{ ports: [{ port: '5432', protocol: 'TCP' }] }],
          },
        ],
        egress: [{}],
      },
    },
  ]);
});
