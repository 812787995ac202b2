// The manifests of policies under examples/ mean something: each is read without a problem, and does what its README says.
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parseAllDocuments } from 'yaml';
import { reservedIdentities, reservedIdentityRows } from '../src/core/identity.ts';
import { parseFlowAccess } from '../src/observe/access/flow-access.ts';
import { evaluateParties, type PolicyModel } from '../src/secure/policy/evaluate.ts';
import { isPolicyKind } from '../src/secure/policy/parse-policy.ts';
import { findEnds, parseService } from '../src/secure/policy/parties.ts';
import { readPolicies } from '../src/secure/policy/read-policies.ts';

const folder = fileURLToPath(new URL('../examples/policies/', import.meta.url));
const manifests = globSync('*.yaml', { cwd: folder }).flatMap((file) =>
  parseAllDocuments(readFileSync(folder + file, 'utf8')).map((document) => document.toJS() as { kind: string }),
);
const zone = (name: string) => ({ name, labels: { 'shop/zone': name } });
const model: PolicyModel = {
  identities: reservedIdentityRows(),
  namespaces: [zone('storefront'), zone('backend'), zone('data')],
  addresses: [],
  prefixes: [
    { cidr: '0.0.0.0/0', identity: reservedIdentities['world-ipv4'] },
    { cidr: '::/0', identity: reservedIdentities['world-ipv6'] },
  ],
  policies: readPolicies(manifests),
};

const effects: readonly string[] = [
  'app=web@storefront -> 169.254.169.254 80: egress denied',
  'app=web@storefront -> fd00:ec2::254 80: egress denied',
  'app=web@storefront -> 198.51.100.1 80: allowed',
  'app=recommender@storefront -> app=cart@backend icmp: allowed',
  'app=recommender@storefront -> app=cart@backend 8080: ingress denied',
  'app=web@storefront -> app=redis@data 6379: ingress denied',
  'app=cart@backend -> app=redis@data 6379: allowed',
  'app=checkout@backend -> app=redis@data 6379: allowed',
  'app=shopper@storefront -> app=web@storefront 8080: allowed',
  'app=cart@backend -> app=web@storefront 8080: ingress denied',
  'world -> app=web@storefront 8080: allowed',
];

test('every example is a policy', () => {
  assert.ok(manifests.length >= 5);
  for (const { kind } of manifests) assert.ok(isPolicyKind(kind), kind);
});

test('every example of access is understood', () => {
  const access = fileURLToPath(new URL('../examples/access/', import.meta.url));
  const grants = globSync('*.yaml', { cwd: access })
    .flatMap((file) => parseAllDocuments(readFileSync(access + file, 'utf8')).map((document) => document.toJS()))
    .filter(({ kind }) => kind === 'FlowAccess');
  assert.equal(grants.length, 2);
  for (const each of grants) assert.ok('row' in parseFlowAccess(each), each.metadata.name);
});

for (const effect of effects) {
  test(effect, () => {
    const [, from, to, port, outcome] = /^(.+) -> (.+) (\S+): (.+)$/.exec(effect)!;
    const end = (text: string) => {
      const found = findEnds(model, [], text);
      assert.ok(found.ok, text);
      return found.ends[0]!.party;
    };
    const { egress, ingress } = evaluateParties(model, end(from!), end(to!), parseService(port!)!);
    assert.equal(!egress.allowed ? 'egress denied' : ingress.allowed ? 'allowed' : 'ingress denied', outcome);
  });
}
