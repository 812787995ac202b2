import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { CidrGroupRow, NamespaceRow, PolicyObjectRow, PolicyServiceRow } from '../../core/rows.ts';
import { createTable } from '../../core/table.ts';
import type { KubeClient } from '../../kube/client.ts';
import type { WeirNodeReport } from '../../kube/weir/schemas.ts';
import type { Log } from '../log.ts';
import { type PolicyProblem, reportPolicies } from './policy-report.ts';

const policy = (generation: number): PolicyObjectRow => ({
  key: 'NetworkPolicy/shop/p',
  kind: 'NetworkPolicy',
  namespace: 'shop',
  name: 'p',
  uid: 'u',
  generation,
  enforcement: 'default',
  specs: [],
  unenforced: [],
});

/** A node of a cluster of so many, on a clock of its own. */
function setUp(t: TestContext, size: number) {
  t.mock.timers.enable({ apis: ['setInterval', 'Date'] });
  const objects = createTable<PolicyObjectRow>({ name: 'objects', key: (row) => row.key });
  const namespaces = createTable<NamespaceRow>({ name: 'namespaces', key: (row) => row.name });
  const cidrGroups = createTable<CidrGroupRow>({ name: 'groups', key: (row) => row.name });
  const services = createTable<PolicyServiceRow>({ name: 'services', key: (row) => row.key });
  const state = { inStep: true, refused: false, problem: undefined as PolicyProblem | undefined };
  const reports: WeirNodeReport['policies'][] = [];
  const warnings: string[] = [];
  const client = {
    async apply(_resource: unknown, { policies }: WeirNodeReport) {
      if (state.refused) throw new Error('forbidden');
      reports.push(policies);
    },
  } as unknown as KubeClient;
  const stop = reportPolicies({
    client,
    node: 'a',
    nodes: { size },
    objects,
    namespaces,
    clusterStaged: false,
    cidrGroups,
    services,
    inStep: () => state.inStep,
    problem: () => state.problem,
    log: { warn: (text: string) => void warnings.push(text) } as unknown as Log,
  });
  t.after(stop);
  /** Lets so many seconds pass, and what is under way end in each. */
  const pass = async (seconds: number): Promise<void> => {
    for (let i = 0; i < seconds; i++) {
      t.mock.timers.tick(1_000);
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  return { objects, namespaces, cidrGroups, services, state, reports, warnings, pass };
}

test('a node tells of its policies within two seconds, once, and only of what is in the kernel', async (t) => {
  const { objects, state, reports, pass } = setUp(t, 3);
  await pass(3);
  assert.equal(reports.length, 1);
  state.inStep = false;
  objects.upsert(policy(1));
  await pass(10);
  assert.equal(reports.length, 1, 'not before it is written');
  state.inStep = true;
  await pass(2);
  assert.equal(reports.length, 2);
  state.problem = { reason: 'NoRoom', message: 'no room' };
  await pass(2);
  assert.deepEqual([reports[2]!.problem, reports[2]!.reason], ['no room', 'NoRoom']);
  await pass(20);
  assert.equal(reports.length, 3);
});

test('a node that cannot get in step says why, with the policies that it had', async (t) => {
  const { objects, state, reports, pass } = setUp(t, 3);
  state.inStep = false;
  state.problem = { reason: 'Failed', message: 'a bug' };
  await pass(10);
  assert.equal(reports.length, 0, 'before it ever was, what an agent before it told stands');
  state.inStep = true;
  state.problem = undefined;
  await pass(2);
  state.inStep = false;
  state.problem = { reason: 'Failed', message: 'x'.repeat(2_000) };
  objects.upsert(policy(1));
  await pass(2);
  assert.equal(reports[1]!.digest, reports[0]!.digest);
  assert.deepEqual([reports[1]!.problem!.length, reports[1]!.reason], [1_024, 'Failed']);
});

test('a node tells of what policies refer to, each by itself', async (t) => {
  const { namespaces, cidrGroups, services, reports, pass } = setUp(t, 3);
  await pass(2);
  namespaces.upsert({ name: 'shop', labels: {} });
  await pass(3);
  assert.equal(reports.length, 1, 'a namespace that says nothing of its policies is none to tell of');
  namespaces.upsert({ name: 'shop', labels: {}, staged: true });
  await pass(2);
  cidrGroups.upsert({ name: 'feed', labels: {}, cidrs: ['192.0.2.0/24'], problems: [] });
  await pass(2);
  services.upsert({ key: 'a/s', namespace: 'a', name: 's', labels: {}, addresses: ['10.0.0.1'] });
  await pass(2);
  const changed = reports.map(({ digest, refers }) => [digest, refers!.staging, refers!.groups, refers!.services]);
  assert.equal(changed.length, 4);
  for (const [at, part] of [1, 2, 3].entries()) {
    const differs = changed[at]!.map((text, i) => text !== changed[at + 1]![i]);
    assert.deepEqual(differs, [false, part === 1, part === 2, part === 3]);
  }
});

test('in a large cluster a node that has much to tell does not write more often than it may', async (t) => {
  const { objects, reports, pass } = setUp(t, 5_000);
  for (let i = 0; i < 500; i++) {
    objects.upsert(policy(i));
    await pass(1);
  }
  assert.ok(reports.length >= 4 && reports.length <= 11, `${reports.length} reports in 500 s`);
  await pass(110);
  const last = reports.length;
  await pass(200);
  assert.equal(reports.length, last, 'the last change has been told');
});

test('what was changed and changed back is nothing to tell', async (t) => {
  t.mock.method(Math, 'random', () => 0.9);
  const { objects, reports, pass } = setUp(t, 5_000);
  objects.upsert(policy(1));
  await pass(60);
  assert.equal(reports.length, 1);
  await pass(60);
  objects.upsert(policy(2));
  await pass(10);
  objects.upsert(policy(1));
  await pass(200);
  assert.equal(reports.length, 1);
});

test('a report that is refused is written again later, and one warning says so', async (t) => {
  const { state, reports, warnings, pass } = setUp(t, 3);
  state.refused = true;
  await pass(60);
  assert.deepEqual(warnings, ['could not tell which policies are enforced']);
  state.refused = false;
  await pass(12);
  assert.equal(reports.length, 1);
});
