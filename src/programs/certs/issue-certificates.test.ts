import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { folderStore } from './certificate-stores.ts';
import { type IssueOptions, issueCertificates } from './issue-certificates.ts';

const options: IssueOptions = {
  nodes: [{ name: 'node1.example', addresses: ['10.9.0.1', 'fd00::1'] }],
  cluster: 'default',
  relayNames: ['flows.example.com'],
  clients: [{ name: 'alice' }],
  days: 90,
  renewDays: 30,
};
const dayMs = 86_400_000;

function store(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'weir-certs-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return { folder, ...folderStore(folder) };
}
const done = (issued: readonly { name: string; done: string }[]) =>
  Object.fromEntries(issued.map((each) => [each.name, each.done]));

test('issueCertificates() makes all once, each for its use only, and nothing again', async (t) => {
  const { folder, ...kept } = store(t);
  assert.deepEqual(done(await issueCertificates(kept, options)), {
    ca: 'made',
    'client-ca': 'made',
    'node1.example': 'made',
    relay: 'made',
    'client-alice': 'made',
  });
  const parsed = async (name: string) => new X509Certificate((await kept.read(name))!.cert);
  const [ca, users] = [await parsed('ca'), await parsed('client-ca')];
  const [node, relay, alice] = [await parsed('node1.example'), await parsed('relay'), await parsed('client-alice')];
  assert.ok(node.verify(ca.publicKey) && relay.verify(ca.publicKey) && alice.verify(users.publicKey));
  assert.ok(!alice.verify(ca.publicKey), 'a user is let in by an agent');
  for (const name of ['node1-example.default.flows.weir.dev', 'node1-example.default.hubble-grpc.cilium.io'])
    assert.ok(node.checkHost(name), name);
  assert.ok(node.checkIP('fd00::1') && relay.checkHost('flows.example.com'));
  const [server, client] = ['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2'];
  assert.deepEqual(
    [node, relay, alice].map((each) => [...each.keyUsage].sort()),
    [[server], [server, client], [client]],
  );
  assert.equal(statSync(join(folder, 'ca.key')).mode & 0o077, 0);
  assert.ok(Object.values(done(await issueCertificates(kept, options))).every((each) => each === 'kept'));
});

test('issueCertificates() renews what ends soon, lacks a name, or cannot be read, and leaves the rest', async (t) => {
  const kept = store(t);
  await issueCertificates(kept, options);
  const later = { ...options, nowMs: Date.now() + 61 * dayMs };
  assert.deepEqual(done(await issueCertificates(kept, later)), {
    ca: 'kept',
    'client-ca': 'kept',
    'node1.example': 'renewed',
    relay: 'renewed',
    'client-alice': 'renewed',
  });
  const moved = { ...later, nodes: [{ name: 'node1.example', addresses: ['10.9.0.1', '10.9.0.7'] }] };
  assert.equal(done(await issueCertificates(kept, moved))['node1.example'], 'renewed');
  await kept.write('relay', { cert: 'broken', key: 'broken' }, {});
  const mended = done(await issueCertificates(kept, moved));
  assert.deepEqual([mended.relay, mended['client-alice'], mended.ca], ['renewed', 'kept', 'kept']);
});

test('issueCertificates() makes an authority anew before it ends, and goes on trusting the old one', async (t) => {
  const kept = store(t);
  await issueCertificates(kept, options);
  const before = (await kept.read('ca'))!.cert;
  const old = new X509Certificate((await kept.read('node1.example'))!.cert);
  const issued = await issueCertificates(kept, { ...options, nowMs: Date.now() + 3_300 * dayMs });
  assert.ok(issued.every((each) => each.done === 'renewed'));
  const bundle = (await kept.read('ca'))!.cert;
  assert.ok(bundle.endsWith(before) && bundle !== before);
  assert.ok(!old.verify(new X509Certificate(bundle).publicKey));
});

test('issueCertificates() without nodes makes one certificate for all agents', async (t) => {
  const kept = store(t);
  await issueCertificates(kept, { ...options, nodes: [] });
  const agents = new X509Certificate((await kept.read('agents'))!.cert);
  for (const name of ['any.default.flows.weir.dev', 'any.default.hubble-grpc.cilium.io', 'agents.flows.weir.dev'])
    assert.ok(agents.checkHost(name), name);
});
