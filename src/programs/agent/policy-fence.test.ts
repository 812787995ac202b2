import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { NamespaceRow } from '../../core/rows.ts';
import { createTable } from '../../core/table.ts';
import type { KubeClient } from '../../kube/client.ts';
import { kubernetesResources } from '../../kube/resource.ts';
import { createPolicyFence, type SeenPolicy } from './policy-fence.ts';

const row = (name: string, resourceVersion: string): SeenPolicy => ({
  key: `NetworkPolicy/shop/${name}`,
  resourceVersion,
});

/** An API server with some policies, and what the node knows of them. */
function setUp(answers: { name: string; resourceVersion: string }[] | Error) {
  const seen = createTable<SeenPolicy>({ name: 'seen', key: (each) => each.key });
  const namespaces = createTable<NamespaceRow>({ name: 'namespaces', key: (each) => each.name });
  namespaces.upsert({ name: 'shop', labels: { team: 'a' } });
  const server = { answers, asked: 0, labels: { team: 'a' } };
  const client = {
    async request(_method: string, path: string, options: { query?: { fieldSelector?: string } }) {
      if (path === '/api/v1/namespaces') {
        assert.equal(options.query?.fieldSelector, 'metadata.name=shop');
        return { items: [{ metadata: { name: 'shop', labels: server.labels } }] };
      }
      server.asked++;
      await new Promise((resolve) => setImmediate(resolve));
      if (server.answers instanceof Error) throw server.answers;
      const items = server.answers.map(({ name, resourceVersion }) => ({
        metadata: { namespace: 'shop', name, uid: `uid-${name}`, resourceVersion },
      }));
      return { items: items.length === 0 ? null : items, metadata: { resourceVersion: '1' } };
    },
  } as unknown as KubeClient;
  const fence = createPolicyFence({ client, resources: [kubernetesResources.networkPolicies], seen, namespaces });
  return { fence, seen, server, namespaces };
}

test('reached() is true at once when the node has what the API server has, or newer', async () => {
  const { fence, seen } = setUp([{ name: 'a', resourceVersion: '9' }]);
  seen.upsert([row('a', '10'), row('other', '1')]);
  assert.equal(await fence.reached('shop', 1_000), true);
});

test('reached() waits for the labels of the namespace: policies may select by them', async () => {
  const { fence, server, namespaces } = setUp([]);
  server.labels = { team: 'b' };
  let done = false;
  const reached = fence.reached('shop', 5_000).then((value) => {
    done = true;
    return value;
  });
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(done, false, 'the labels are still the old ones');
  namespaces.upsert({ name: 'shop', labels: { team: 'b' } });
  assert.equal(await reached, true);
});

test('reached() waits for a policy that the watch has not brought yet, and for its newest version', async () => {
  const { fence, seen } = setUp([
    { name: 'a', resourceVersion: '9' },
    { name: 'b', resourceVersion: '10' },
  ]);
  seen.upsert(row('a', '8'));
  let done = false;
  const reached = fence.reached('shop', 5_000).then((value) => {
    done = true;
    return value;
  });
  await new Promise((resolve) => setTimeout(resolve, 20));
  seen.upsert(row('b', '10'));
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(done, false, 'a is still the old one');
  seen.upsert(row('a', '9'));
  assert.equal(await reached, true);
});

test('reached() asks again when nothing comes: what was deleted meanwhile never does', async () => {
  const { fence, server } = setUp([{ name: 'a', resourceVersion: '9' }]);
  const reached = fence.reached('shop', 5_000);
  await new Promise((resolve) => setTimeout(resolve, 20));
  server.answers = [];
  assert.equal(await reached, true);
});

test('reached() is false when the API server does not answer, and when the policy does not come in time', async () => {
  assert.equal(await setUp(new Error('gone')).fence.reached('shop', 1_000), false);
  assert.equal(await setUp([{ name: 'a', resourceVersion: '9' }]).fence.reached('shop', 50), false);
});

test('reached() asks once for all who come while a question is under way', async () => {
  const { fence, server } = setUp([]);
  const all = await Promise.all(Array.from({ length: 16 }, () => fence.reached('shop', 1_000)));
  assert.deepEqual(new Set(all), new Set([true]));
  assert.equal(server.asked, 2, 'the first, and one for those who came after it had begun');
});

test('reached() is not content with the policy that had the name before', async () => {
  const { fence, seen } = setUp([{ name: 'a', resourceVersion: '20' }]);
  seen.upsert(row('a', '10'));
  assert.equal(await fence.reached('shop', 50), false);
});
