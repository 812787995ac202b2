import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { parseAllDocuments } from 'yaml';
import { parseNetworkPolicy } from './parse-network-policy.ts';

const metadata = { name: 'p', namespace: 'shop' };
/** The object and its only spec as one. */
const parse = (spec: unknown, more: object = {}) => {
  const { row, problems } = parseNetworkPolicy({ metadata: { ...metadata, ...more }, spec });
  const { specs, ...object } = row!;
  assert.equal(specs.length, 1);
  return { row: { ...object, ...specs[0]! }, problems };
};
const inShop = (matchLabels: object) => ({
  kind: 'endpoints',
  selector: { matchLabels: { ...matchLabels, 'io.kubernetes.pod.namespace': 'shop' }, matchExpressions: [] },
});

test('parseNetworkPolicy() fills in the defaults of the API', () => {
  const { row, problems } = parse({ podSelector: {}, ingress: [{ ports: [{ port: 80 }] }] });
  assert.deepEqual(problems, []);
  assert.deepEqual(row, {
    key: 'NetworkPolicy/shop/p',
    kind: 'NetworkPolicy',
    namespace: 'shop',
    name: 'p',
    enforcement: 'default',
    unenforced: [],
    tier: 'normal',
    priority: 0,
    subject: inShop({}),
    isolates: { ingress: true, egress: false },
    ingress: [
      { index: 0, list: 'ingress', action: 'allow', ports: [{ kind: 'range', protocol: 6, first: 80, last: 80 }] },
    ],
    egress: [],
  });
  assert.deepEqual(parse({ egress: [{}] }).row?.isolates, { ingress: true, egress: true });
  assert.deepEqual(parse({ egress: [] }).row?.isolates, { ingress: true, egress: false });
  assert.deepEqual(parse({ policyTypes: ['Egress'] }).row?.isolates, { ingress: false, egress: true });
  assert.deepEqual(parse(undefined).row?.isolates, { ingress: true, egress: false });
});

test('parseNetworkPolicy() clears host bits of blocks, as the API server accepts them', () => {
  const { row } = parse({ ingress: [{ from: [{ ipBlock: { cidr: '10.1.2.3/8', except: ['10.9.9.9/16', 'bad'] } }] }] });
  assert.match(row?.error ?? '', /except\[1\] is not a block: "bad" has no prefix length/);
  const fine = parse({ ingress: [{ from: [{ ipBlock: { cidr: 'FD00:0::1/8', except: ['fd01::/16'] } }] }] });
  assert.deepEqual(fine.row?.ingress[0]?.peers, [
    { kind: 'block', cidr: 'fd00::/8', except: ['fd01::/16'], reach: 'any' },
  ]);
});

test('parseNetworkPolicy() knows staged policies by their annotation', () => {
  const annotated = (value: string) => parse({}, { annotations: { 'weir.dev/enforcement': value } }).row;
  assert.equal(annotated('staged')?.enforcement, 'staged');
  assert.equal(annotated('enforced')?.enforcement, 'enforced');
  assert.match(annotated('stagged')?.error ?? '', /must be staged or enforced/);
});

const wrong: [name: string, spec: unknown, message: RegExp][] = [
  [
    'an unknown field',
    { ingres: [] },
    /^spec\.ingres is not a field here; did you mean ingress\? The fields are podSelector/,
  ],
  ['an unknown field of a rule', { ingress: [{ to: [] }] }, /spec\.ingress\[0\]\.to is not a field here/],
  ['a rule that is not an object', { ingress: [3] }, /spec\.ingress\[0\] must be an object/],
  [
    'an empty peer',
    { ingress: [{ from: [{}] }] },
    /spec\.ingress\[0\]\.from\[0\] must have podSelector, namespaceSelector or ipBlock/,
  ],
  [
    'a block beside a selector',
    { egress: [{ to: [{ ipBlock: { cidr: '10.0.0.0/8' }, podSelector: {} }] }] },
    /has ipBlock beside a selector/,
  ],
  [
    'an exception outside of its block',
    { egress: [{ to: [{ ipBlock: { cidr: '10.0.0.0/8', except: ['11.0.0.0/16'] } }] }] },
    /except\[0\] must be a smaller block inside of 10\.0\.0\.0\/8/,
  ],
  [
    'an exception as large as its block',
    { egress: [{ to: [{ ipBlock: { cidr: '10.0.0.0/8', except: ['10.0.0.0/8'] } }] }] },
    /must be a smaller block/,
  ],
  ['a leading zero', { egress: [{ to: [{ ipBlock: { cidr: '010.0.0.0/8' } }] }] }, /has a leading zero/],
  [
    'an unknown protocol',
    { ingress: [{ ports: [{ protocol: 'tcp' }] }] },
    /ports\[0\]\.protocol must be TCP, UDP or SCTP/,
  ],
  ['port 0', { ingress: [{ ports: [{ port: 0 }] }] }, /port must be a number from 1 to 65535/],
  ['port 65536', { ingress: [{ ports: [{ port: 65_536 }] }] }, /port must be a number from 1 to 65535/],
  ['a range upside down', { ingress: [{ ports: [{ port: 90, endPort: 80 }] }] }, /endPort must not be below port, 90/],
  ['endPort without port', { ingress: [{ ports: [{ endPort: 80 }] }] }, /endPort needs port beside it/],
  [
    'endPort after a name',
    { ingress: [{ ports: [{ port: 'http', endPort: 80 }] }] },
    /endPort cannot follow a port with a name/,
  ],
  ['a number in quotes', { ingress: [{ ports: [{ port: '80' }] }] }, /is not a port name/],
  ['a port name too long', { ingress: [{ ports: [{ port: 'a'.repeat(16) }] }] }, /at most 15/],
  ['an unknown policyType', { policyTypes: ['Ingress', 'ingress'] }, /policyTypes may hold Ingress and Egress only/],
  [
    'a label value too long',
    { podSelector: { matchLabels: { a: 'v'.repeat(64) } } },
    /has 64 characters; 63 are allowed/,
  ],
  [
    'an unknown operator',
    { podSelector: { matchExpressions: [{ key: 'a', operator: 'Gt', values: ['1'] }] } },
    /must be In, NotIn, Exists or DoesNotExist/,
  ],
  [
    'In without values',
    { podSelector: { matchExpressions: [{ key: 'a', operator: 'In' }] } },
    /values must not be empty with In/,
  ],
  [
    'Exists with values',
    { podSelector: { matchExpressions: [{ key: 'a', operator: 'Exists', values: ['x'] }] } },
    /values must be empty with Exists/,
  ],
  [
    'a label that identities leave out',
    { podSelector: { matchLabels: { 'pod-template-hash': 'x' } } },
    /uses pod-template-hash, which changes per pod or rollout/,
  ],
];

for (const [name, spec, message] of wrong) {
  test(`parseNetworkPolicy() names ${name}, isolates and allows nothing`, () => {
    const { row } = parse(spec);
    assert.match(row?.error ?? '', message);
    assert.ok(row?.isolates.ingress || row?.isolates.egress);
    assert.deepEqual([row?.ingress, row?.egress], [[], []]);
  });
}

test('parseNetworkPolicy() keeps what it can read of a broken selector, so that it isolates more rather than less', () => {
  const { row } = parse({ podSelector: { matchLabels: { app: 'web', 'bad key': 'x' } }, policyTypes: 'Ingress' });
  assert.deepEqual(row?.subject, inShop({ app: 'web' }));
  assert.deepEqual(row?.isolates, { ingress: true, egress: true });
  assert.deepEqual(parse({ egress: 'everything' }).row?.isolates, { ingress: true, egress: true });
});

test('parseNetworkPolicy() gives no row to what has no name, and says so', () => {
  for (const given of [
    null,
    7,
    'x',
    [],
    {},
    { metadata: { name: 'p' } },
    { metadata: { ...metadata, name: 'a'.repeat(300) } },
  ]) {
    const { row, problems } = parseNetworkPolicy(given);
    assert.equal(row, undefined);
    assert.ok(problems.length > 0);
  }
});

test('parseNetworkPolicy() shows the first problems of many', () => {
  const { row } = parse({ ingress: Array(500).fill(3) });
  assert.match(row?.error ?? '', /; and 490 more$/);
});

test('parseNetworkPolicy() never throws, and never allows anything after a problem', () => {
  const field = fc.constantFrom(
    'podSelector',
    'ingress',
    'egress',
    'policyTypes',
    'from',
    'to',
    'ports',
    'port',
    'endPort',
    'protocol',
    'ipBlock',
    'cidr',
    'except',
    'matchLabels',
    'matchExpressions',
    'key',
    'operator',
    'values',
    'namespaceSelector',
    '__proto__',
  );
  const leaf = fc.oneof(
    fc.constantFrom('Ingress', 'TCP', '10.0.0.0/8', 'In', 'http', '', 80, -1, 1e9, null, true),
    fc.string(),
  );
  const { tree } = fc.letrec((tie) => ({
    tree: fc.oneof(
      { depthSize: 'small', withCrossShrink: true },
      leaf,
      fc.array(tie('tree'), { maxLength: 3 }),
      fc.dictionary(field, tie('tree'), { maxKeys: 4 }),
    ),
  }));
  fc.assert(
    fc.property(tree, fc.oneof(fc.constant(metadata), tree), (spec, meta) => {
      const { row, problems } = parseNetworkPolicy({ metadata: meta, spec });
      assert.equal(row === undefined || row.error !== undefined, problems.length > 0);
      if (row?.error !== undefined) {
        for (const spec of row.specs) assert.deepEqual([spec.ingress, spec.egress], [[], []]);
      }
    }),
    { numRuns: 2000 },
  );
});

const root = fileURLToPath(new URL('../../..', import.meta.url));
const corpus = process.env.WEIR_CORPUS ?? join(root, '../shared/corpus');
const found = existsSync(corpus) ? corpusPolicies(corpus) : [];
const skip =
  found.length > 0
    ? false
    : `no NetworkPolicies in ${process.env.WEIR_CORPUS ? 'WEIR_CORPUS' : 'a corpus beside the repository'}`;

test('parseNetworkPolicy() reads every NetworkPolicy of the corpus', { skip }, () => {
  for (const { file, policy } of found) {
    const { namespace = 'default', ...rest } = policy.metadata ?? {};
    const { problems } = parseNetworkPolicy({ ...policy, metadata: { namespace, ...rest } });
    assert.deepEqual(problems, [], file);
  }
});

interface Manifest {
  readonly kind?: string;
  readonly apiVersion?: string;
  readonly metadata?: Record<string, unknown>;
}

function corpusPolicies(folder: string): { file: string; policy: Manifest }[] {
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((file) =>
    /\.(ya?ml|json)$/.test(file),
  );
  return files.flatMap((file) =>
    parseAllDocuments(readFileSync(join(folder, file), 'utf8'))
      .map((document) => document.toJS() as Manifest | null)
      .flatMap((policy) =>
        policy?.kind === 'NetworkPolicy' && policy.apiVersion === 'networking.k8s.io/v1' ? [{ file, policy }] : [],
      ),
  );
}
