import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { GetFlowsRequestSchema } from '../../../proto/gen/observer/observer_pb.js';
import type { AccessUser } from '../../observe/access/flow-access.ts';
import type { AccessRights, AccessVerb } from '../../observe/access/rights.ts';
import { RpcCode, RpcError } from '../../observe/rpc/rpc-status.ts';
import { enforceAccess } from './enforce-access.ts';
import { reviewedRoles, rightsOf } from './kube-rights.ts';

const all = { processes: true, redactions: new Set<never>() };
const call = (authorization?: string, address = '192.0.2.1') => ({
  signal: new AbortController().signal,
  peer: { address },
  authorization,
});

function scene() {
  const users = new Map<string, AccessUser>([
    ['ann', { name: 'ann', groups: [] }],
    ['root', { name: 'root', groups: ['admins'] }],
  ]);
  const rights = new Map<string, AccessRights>([['ann', new Map([['shop', all]])]]);
  const refused: string[] = [];
  const listeners = new Set<() => void>();
  let failing: RpcError | undefined;
  const access = enforceAccess({
    async authenticate({ authorization = '' }) {
      if (failing !== undefined) throw failing;
      const user = users.get(authorization);
      if (user === undefined) throw new RpcError(RpcCode.unauthenticated, 'nobody');
      return user;
    },
    source: {
      rights: async ({ name }) => rights.get(name) ?? new Map(),
      subscribe(listener) {
        listeners.add(listener);
        return () => listeners.delete(listener);
      },
    },
    admins: ['admins'],
    onRefused: ({ user }, reason) => refused.push(`${user}: ${reason}`),
    everyMs: 10,
    graceMs: 100,
  });
  const tell = () => {
    for (const listener of [...listeners]) listener();
  };
  return { access, users, rights, refused, listeners, tell, fail: (error?: RpcError) => (failing = error) };
}

async function until(done: () => boolean): Promise<void> {
  for (let i = 0; i < 200 && !done(); i++) await new Promise((resolve) => setTimeout(resolve, 5));
  assert.ok(done());
}

test('the unix socket and administrators see everything, others their namespaces, nobody nothing', async () => {
  const { access, users, rights, refused } = scene();
  assert.equal((await access.viewer(call(undefined, ''))).everything, true);
  assert.equal((await access.viewer(call('root'))).everything, true);
  const ann = await access.viewer(call('ann'));
  assert.equal(ann.everything, false);
  assert.deepEqual(
    [ann.namespace('default', 'shop'), ann.namespace('default', 'bank'), ann.namespace('other', 'shop')],
    [true, false, false],
  );
  assert.throws(() => ann.requireEverything('what agents did'), /"ann" is in none of admins/);
  await assert.rejects(access.viewer(call()), { code: RpcCode.unauthenticated });
  users.set('bob', { name: 'bob', groups: [] });
  await assert.rejects(access.viewer(call('bob')), {
    code: RpcCode.permissionDenied,
    message: 'user "bob" may see no namespace; grant it with a FlowAccess, or a role for get of flows.weir.dev',
  });
  assert.equal(refused.length, 3, refused.join('; '));
  assert.match(refused[2]!, /^bob: /);
  rights.clear();
  await assert.rejects(access.viewer(call('ann')), { code: RpcCode.permissionDenied });
});

function stream(viewer: Awaited<ReturnType<ReturnType<typeof scene>['access']['viewer']>>) {
  const told: string[] = [];
  const grant = viewer.flows(create(GetFlowsRequestSchema));
  const stop = grant.follow!({
    changed: () => told.push(grant.request().whitelist[0]!.sourcePod.join()),
    ended: ({ code, message }) => told.push(`${code} ${message}`),
  });
  return { told, stop };
}

test('a running stream is told of other rights, and ends when there are none or the token is no more', async () => {
  const { access, users, rights, listeners, tell } = scene();
  const { told, stop } = stream(await access.viewer(call('ann')));
  rights.set(
    'ann',
    new Map([
      ['shop', all],
      ['bank', all],
    ]),
  );
  tell();
  await until(() => told.length === 1);
  assert.deepEqual(told, ['shop/,bank/']);
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(told.length, 1, 'the same rights are no news');
  users.delete('ann');
  await until(() => told.length === 2);
  assert.match(told[1]!, /^16 nobody/);
  assert.equal(listeners.size, 0);
  stop();

  const root = stream((await access.viewer(call('root'))) as never);
  users.set('root', { name: 'root', groups: [] });
  await until(() => root.told.length === 1);
  assert.match(root.told[0]!, /^7 user "root" may see no namespace/);
});

test('a running stream outlives an API server that is away for a moment only', async () => {
  const { access, fail } = scene();
  const { told } = stream(await access.viewer(call('ann')));
  fail(new RpcError(RpcCode.unavailable, 'away'));
  await new Promise((resolve) => setTimeout(resolve, 40));
  fail();
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.deepEqual(told, []);
  fail(new RpcError(RpcCode.unavailable, 'away'));
  await until(() => told.length === 1);
  assert.deepEqual(told, ['14 away']);
});

test('reviewedRoles() asks for all namespaces first, then for each, and again what is granted', async () => {
  let now = 0;
  const asked: string[] = [];
  const granted = new Set(['ann flows a', 'eve flows ', 'eve processes b']);
  const roles = reviewedRoles(
    async ({ name }, verb, namespace) => {
      asked.push(`${verb} ${namespace}`);
      return granted.has(`${name} ${verb} ${namespace}`);
    },
    () => now,
  );
  const of = async (name: string) => Object.fromEntries(await roles({ name, groups: [] }, ['a', 'b']));
  assert.deepEqual(await of('ann'), { a: ['flows'], b: [] });
  assert.deepEqual(asked, ['flows ', 'flows a', 'flows b', 'processes ', 'processes a', 'processes b']);
  assert.deepEqual(await of('eve'), { a: ['flows'], b: ['flows', 'processes'] });
  asked.length = 0;
  await of('ann');
  assert.deepEqual(asked, []);
  granted.clear();
  now += 5_000;
  assert.deepEqual(await of('ann'), { a: [], b: [] });
});

test('reviewedRoles() fails when the API server does not answer, and does not remember it', async () => {
  let away = true;
  const roles = reviewedRoles(async () => {
    if (away) throw new Error('away');
    return true;
  });
  await assert.rejects(roles({ name: 'ann', groups: [] }, ['a']));
  away = false;
  assert.equal((await roles({ name: 'ann', groups: [] }, ['a'])).get('a')?.length, 2);
});

test('rightsOf() adds up roles and FlowAccess objects', () => {
  const byRole = new Map<string, readonly AccessVerb[]>([
    ['shop', ['flows']],
    ['bank', ['processes']],
  ]);
  const row = {
    name: 'x',
    subjects: [{ kind: 'User' as const, name: 'ann' }],
    namespaces: ['shop', 'gone'],
    grant: { verbs: ['flows', 'processes'] as const, redactions: ['labels', 'arguments'] as const },
  };
  const rights = rightsOf(
    { name: 'ann', groups: [] },
    [row],
    new Map([
      ['shop', {}],
      ['bank', {}],
    ]),
    byRole,
  );
  assert.deepEqual([...rights].map(([name, { processes, redactions }]) => [name, processes, [...redactions]]).sort(), [
    ['gone', true, ['arguments', 'labels']],
    ['shop', true, ['arguments']],
  ]);
});
