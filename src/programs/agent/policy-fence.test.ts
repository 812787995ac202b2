import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createTable } from '../../core/table.ts';
import type { KubeClient } from '../../kube/client.ts';
import { kubernetesResources } from '../../kube/resource.ts';
import { createPolicyFence, type SeenPolicy } from './policy-fence.ts';

const key = 'NetworkPolicy/shop/deny';

function setUp(list: () => Promise<string | undefined>) {
  const seen = createTable<SeenPolicy>({ name: 'seen', key: (row) => row.key });
  let asked = 0;
  const client = {
    async list() {
      asked++;
      const resourceVersion = await list();
      const metadata = { name: 'deny', namespace: 'shop', uid: 'new', resourceVersion };
      return { metadata: { resourceVersion: '1' }, items: resourceVersion === undefined ? [] : [{ metadata }] };
    },
  } as unknown as KubeClient;
  const fence = createPolicyFence({ client, resources: [kubernetesResources.networkPolicies], seen });
  return { seen, fence, asked: () => asked };
}

test('reached() waits for the version that the API server has', async () => {
  const { seen, fence } = setUp(async () => '20');
  const waiting = fence.reached('shop', 2_000);
  seen.upsert({ key, resourceVersion: '9' });
  seen.upsert({ key, resourceVersion: '21' });
  assert.equal(await waiting, true);
});

test('reached() is not content with the policy that had the name before', async () => {
  const { seen, fence } = setUp(async () => '20');
  seen.upsert({ key, resourceVersion: '10' });
  assert.equal(await fence.reached('shop', 50), false);
});

test('reached() asks again after a while, since what was deleted meanwhile never comes', async () => {
  let there: string | undefined = '20';
  const { fence, asked } = setUp(async () => there);
  const waiting = fence.reached('shop', 2_000);
  there = undefined;
  assert.equal(await waiting, true);
  assert.ok(asked() >= 1);
});

test('reached() says no when the API server does not answer, or not in time', async () => {
  const failing = setUp(() => Promise.reject(new Error('no')));
  assert.equal(await failing.fence.reached('shop', 1_000), false);
  const silent = setUp(() => new Promise(() => {}));
  assert.equal(await silent.fence.reached('shop', 20), false);
});

test('reached() shares one question among those who come while another is under way', async () => {
  const { fence, asked } = setUp(async () => undefined);
  await Promise.all(Array.from({ length: 50 }, () => fence.reached('shop', 1_000)));
  assert.equal(asked(), 2);
});
