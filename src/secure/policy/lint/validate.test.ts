import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readManifests } from '../manifests/read-manifests.ts';
import { findingKinds, findingText } from './findings.ts';
import { sarifLog } from './sarif.ts';
import { validatePolicies } from './validate.ts';

const policies = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Ingress, Egress]
  ingres:
    - from: []
  egress:
    - to:
        - podSelector: {matchLabels: {app: web}}
      ports:
        - {port: sql, protocol: TCP}
        - {port: 90, endPort: 80}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolcy
metadata: {name: x}
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: c, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: nobody}}
  egress:
    - toCIDR: [10.0.0.0/8]
    - toFQDNs: [{matchName: example.com}]
    - toEndpoints: [{matchLabels: {app: nothing}}]
  egressDeny:
    - toCIDR: [10.0.0.0/7]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: w, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
    - from: [{podSelector: {matchLabels: {app: db}}}]
      ports: [{port: http}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: w, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Egress]
`;
const pods = `kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {serviceAccountName: web}
status: {podIP: 10.1.1.1}
---
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
`;

const check = (text: string, cluster = '') =>
  validatePolicies([{ file: 'a.yaml', text }], readManifests([{ file: 'pods.yaml', text: cluster }]).manifests);
const codesOf = (text: string, cluster = '') =>
  check(text, cluster).findings.map(({ line, column, code }) => `${line}:${column} ${code}`);

test('validatePolicies() finds mistakes with their places, and what is odd with the pods given', () => {
  assert.deepEqual(codesOf(policies, pods), [
    '7:3 POLICY_INVALID',
    '14:22 POLICY_INVALID',
    '17:1 KIND_UNKNOWN',
    '24:3 SELECTS_NOBODY',
    '26:7 RULE_SHADOWED',
    '26:7 BLOCK_HOLDS_PODS',
    '27:7 NOT_ENFORCED_YET',
    '28:7 PEER_IS_NOBODY',
    '30:7 BLOCK_HOLDS_PODS',
    '38:7 PORT_NAME_UNKNOWN',
    '43:12 POLICY_TWICE',
    '44:1 DNS_CUT',
    '44:1 API_SERVER_CUT',
  ]);
  const [first, , third] = check(policies, pods).findings;
  assert.equal(
    findingText(first!),
    'a.yaml:7:3: error: POLICY_INVALID spec.ingres is not a field here; did you mean ingress? The fields are podSelector, ingress, egress, policyTypes (correct the field)',
  );
  assert.equal(third!.hint, 'did you mean NetworkPolicy?');
});

test('validatePolicies() says without pods only what the policies themselves tell', () => {
  assert.deepEqual(
    codesOf(policies).map((text) => text.split(' ')[1]),
    [
      'POLICY_INVALID',
      'POLICY_INVALID',
      'KIND_UNKNOWN',
      'DNS_CUT',
      'RULE_SHADOWED',
      'NOT_ENFORCED_YET',
      'POLICY_TWICE',
      'DNS_CUT',
    ],
  );
});

const oneWay = `
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
    - from: [{podSelector: {matchLabels: {app: web}}}]
      ports: [{port: 5432}]
---
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Egress]
  egress:
    - ports: [{port: 53, protocol: UDP}]
    - to: [{ipBlock: {cidr: 0.0.0.0/0}}]
      ports: [{port: 6443}]
`;

test('validatePolicies() finds a rule that lets in who is not let out', () => {
  assert.deepEqual(codesOf(oneWay, pods), ['8:7 EGRESS_MISSING']);
  assert.deepEqual(
    codesOf(
      oneWay
        .replace('0.0.0.0/0}}]', '0.0.0.0/0}}, {ipBlock: {cidr: "::/0"}}]')
        .replace('{port: 6443}', '{port: 6443}, {port: 5432}'),
      pods,
    ),
    [],
  );
});

test('validatePolicies() finds rules behind those of a tier before them', () => {
  const policy = (tier: string, priority: number, name: string, rule: string) => `
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: ${name}}
spec:
  tier: ${tier}
  priority: ${priority}
  subject: {namespaces: {}}
  ingress: [${rule}]
---`;
  const all = '{action: Deny, from: [{namespaces: {}}]}';
  const some =
    '{action: Accept, from: [{namespaces: {matchLabels: {a: b}}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}';
  assert.deepEqual(codesOf(policy('Admin', 1, 'a', all) + policy('Admin', 2, 'b', some)), ['18:13 RULE_SHADOWED']);
  assert.deepEqual(codesOf(policy('Admin', 3, 'a', all) + policy('Admin', 2, 'b', some)), []);
  assert.deepEqual(codesOf(policy('Admin', 1, 'a', all) + policy('Baseline', 0, 'b', some)), ['18:13 RULE_SHADOWED']);
});

test('sarifLog() has a rule for every code and a place for every finding', () => {
  const { findings } = check(policies, pods);
  const log = JSON.parse(JSON.stringify(sarifLog(findings, '1.0.0'))) as {
    version: string;
    runs: {
      tool: { driver: { rules: { id: string }[] } };
      results: {
        ruleId: string;
        ruleIndex: number;
        locations: { physicalLocation: { region: { startLine: number } } }[];
      }[];
    }[];
  };
  const [run] = log.runs;
  assert.equal(log.version, '2.1.0');
  assert.deepEqual(
    run!.tool.driver.rules.map(({ id }) => id),
    Object.keys(findingKinds),
  );
  assert.equal(run!.results.length, findings.length);
  for (const { ruleId, ruleIndex, locations } of run!.results) {
    assert.equal(run!.tool.driver.rules[ruleIndex]!.id, ruleId);
    assert.ok(locations[0]!.physicalLocation.region.startLine >= 1);
  }
});

/** Numbers that are the same in every run. */
function* numbers(seed: number): Generator<number> {
  for (let state = seed; ; ) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    yield state >>> 8;
  }
}

test('validatePolicies() survives thousands of broken files (WEIR_FUZZ says how many)', () => {
  const count = Number(process.env.WEIR_FUZZ ?? 2000);
  const sources = [...policies.split('---\n'), oneWay, pods];
  const pieces = [
    '{',
    '}',
    '[',
    ']',
    ':',
    '-',
    '\n',
    ' ',
    '"',
    'null',
    '0',
    '*a',
    '&a',
    '!!map',
    '|',
    '- {}',
    'spec',
    '4294967296',
    '\u0000',
    'é',
    '__proto__: {a: b}',
    '{matchLabels: 3}',
    '[[]]',
  ];
  const random = numbers(7);
  const next = (most: number): number => random.next().value! % most;
  for (let i = 0; i < count; i++) {
    let text = sources[i % sources.length]!;
    for (let changes = 1 + next(4); changes > 0; changes--) {
      const at = next(text.length + 1);
      const piece = pieces[next(pieces.length)]!;
      const kind = next(3);
      text = text.slice(0, at) + (kind === 1 ? '' : piece) + text.slice(kind === 0 ? at : at + 1 + next(12));
    }
    const { findings } = check(text);
    for (const { line, column } of findings) assert.ok(line >= 1 && column >= 1);
  }
});

test('validatePolicies() warns of what does something else than it seems to, at its place', () => {
  const text = `
kind: CiliumNetworkPolicy
apiVersion: cilium.io/v2
metadata: {name: db, namespace: shop}
spec:
  endpointSelector: {matchLabels: {'reserved:init': ''}}
  ingressDeny:
    - fromEntities: [world]
      toPorts: [{}]
`;
  const found = validatePolicies([{ file: 'a.yaml', text }]).findings.filter(({ code }) => code === 'NOT_AS_IT_SEEMS');
  assert.deepEqual(
    found.map(({ line, message }) => [line, message.split(' ')[0]]),
    [
      [6, 'spec.endpointSelector'],
      [9, 'spec.ingressDeny[0].toPorts[0]'],
    ],
  );
});
