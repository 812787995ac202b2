// Services of type LoadBalancer get addresses of pools: against a real API server, through a restart of the operator.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startOperator, stopOperator } from '../../lab/lab.ts';
import { addressPool, poolNamespace } from './address-pool.ts';
import { labName, type SharedLab, sharedLab, waitFor } from './shared-lab.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const namespace = 'lb-addresses';

interface Seen {
  readonly status?: {
    readonly loadBalancer?: { readonly ingress?: readonly { ip: string }[] };
    readonly conditions?: readonly { type: string; status: string; reason: string; message: string }[];
  };
}

describe('addresses of pools', { skip }, () => {
  let lab: SharedLab;
  const service = (name: string, more: { annotations?: Record<string, string>; spec?: object } = {}) => ({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace, annotations: more.annotations },
    spec: { type: 'LoadBalancer', selector: { app: 'none' }, ports: [{ port: 80 }], ...more.spec },
  });
  const pool = (name: string, spec: object) => addressPool(name, namespace, spec);
  const read = async (name: string): Promise<Seen> =>
    JSON.parse(await lab.kubectl(['-n', namespace, 'get', 'service', name, '-o', 'json']));
  const addressesOf = (seen: Seen) => (seen.status?.loadBalancer?.ingress ?? []).map((each) => each.ip);
  const conditionOf = (seen: Seen) =>
    seen.status?.conditions?.find((each) => each.type === 'cilium.io/IPAMRequestSatisfied');
  const until = (name: string, what: string, check: (seen: Seen) => boolean) =>
    waitFor(
      `service ${name}: ${what}`,
      async () => {
        const seen = await read(name);
        return check(seen) ? seen : undefined;
      },
      15_000,
      20,
    );

  before(async () => {
    lab = await sharedLab();
    await poolNamespace(lab, namespace);
  });
  after(async () => {
    await lab.kubectl(['delete', 'namespace', namespace, '--wait=false', '--ignore-not-found']);
    await lab.kubectl(['delete', 'ippool', 'lb-blue', 'lb-late', '--ignore-not-found']);
  });

  test('a service waits without an address while there is no pool, and has one within a second of the first', async (t) => {
    await lab.apply([service('early')]);
    assert.deepEqual(addressesOf(await read('early')), []);
    const beganMs = Date.now();
    await lab.apply([pool('lb-blue', { blocks: [{ start: '10.77.0.200', stop: '10.77.0.203' }] })]);
    await until('early', 'an address', (seen) => addressesOf(seen)[0] === '10.77.0.200');
    const poolMs = Date.now() - beganMs;
    const againMs = Date.now();
    await lab.apply([service('second')]);
    await until('second', 'an address', (seen) => addressesOf(seen)[0] === '10.77.0.201');
    t.diagnostic(
      `after the pool ${poolMs} ms, after the service ${Date.now() - againMs} ms, kubectl's own time included`,
    );
    assert.match(await lab.kubectl(['-n', namespace, 'get', 'service', 'second']), /LoadBalancer +\S+ +10\.77\.0\.201/);
  });

  test('kubectl shows how a pool is used, and that a younger one is in its way', async () => {
    await lab.apply([pool('lb-late', { blocks: [{ cidr: '10.77.0.202/31' }] })]);
    const rows = await waitFor(
      'the columns',
      async () => {
        const text = await lab.kubectl(['get', 'lbippools']);
        return /lb-blue +false +False +2 /.test(text) && /lb-late +false +True +2 /.test(text) ? text : undefined;
      },
      10_000,
      50,
    );
    assert.match(rows, /NAME +DISABLED +CONFLICTING +IPS AVAILABLE +AGE/);
    await lab.kubectl(['delete', 'ippool', 'lb-late']);
  });

  test('a refusal is in the condition and in an event', async () => {
    await lab.apply([service('greedy', { annotations: { 'lbipam.cilium.io/ips': '10.77.0.200' } })]);
    const seen = await until('greedy', 'a refusal', (each) => conditionOf(each)?.status === 'False');
    assert.equal(conditionOf(seen)!.reason, 'already_allocated');
    assert.match(conditionOf(seen)!.message, /10\.77\.0\.200 is that of service lb-addresses\/early/);
    const described = await waitFor(
      'the event',
      async () => {
        const text = await lab.kubectl(['-n', namespace, 'get', 'events', '--field-selector=reason=NoAddress']);
        return text.includes('greedy') ? text : undefined;
      },
      5_000,
      50,
    );
    assert.match(described, /already_allocated/);
    await lab.kubectl([
      '-n',
      namespace,
      'annotate',
      'service',
      'greedy',
      'lbipam.cilium.io/ips=10.77.0.203',
      '--overwrite',
    ]);
    await until(
      'greedy',
      'its address',
      (each) => conditionOf(each)?.status === 'True' && addressesOf(each)[0] === '10.77.0.203',
    );
  });

  test('addresses stay over a restart of the operator, and what changed meanwhile is done', async () => {
    await stopOperator(labName);
    await lab.kubectl(['-n', namespace, 'delete', 'service', 'early']);
    await lab.apply([service('third')]);
    startOperator(labName);
    await until('third', 'the address that was freed', (seen) => addressesOf(seen)[0] === '10.77.0.200');
    assert.deepEqual(addressesOf(await read('second')), ['10.77.0.201']);
  });

  test('a service that changes its type gives its address back; a pool that moves takes its services along', async () => {
    await lab.kubectl(['-n', namespace, 'patch', 'service', 'second', '-p', '{"spec":{"type":"ClusterIP"}}']);
    await until('second', 'no address', (seen) => addressesOf(seen).length === 0 && conditionOf(seen) === undefined);
    await lab.apply([service('fourth')]);
    await until('fourth', 'the address that was freed', (seen) => addressesOf(seen)[0] === '10.77.0.201');
    await lab.apply([pool('lb-blue', { blocks: [{ start: '10.77.0.210', stop: '10.77.0.219' }] })]);
    await until('fourth', 'an address of the new block', (seen) =>
      /^10\.77\.0\.21\d$/.test(addressesOf(seen)[0] ?? ''),
    );
    await lab.kubectl(['delete', 'ippool', 'lb-blue']);
    const seen = await until('fourth', 'no address', (each) => addressesOf(each).length === 0);
    assert.equal(conditionOf(seen)!.reason, 'no_pool');
  });
});
