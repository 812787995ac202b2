import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ServiceRow } from '../../core/rows.ts';
import type { KubeObject } from '../../kube/resource.ts';
import { createServiceEvents } from './service-events.ts';

const service = { key: 'shop/web', name: 'web', namespace: 'shop', uid: 'u1' } as ServiceRow;

function world(failures = 0) {
  const created: { name: string; message: string }[] = [];
  const errors: unknown[] = [];
  let left = failures;
  let asked = 0;
  const events = createServiceEvents({
    firstRetryMs: 1,
    onError: (error) => errors.push(error),
    async create(event: KubeObject) {
      asked++;
      if (left-- > 0) throw new Error('no answer');
      created.push({ name: event.metadata.name, message: (event as KubeObject & { message: string }).message });
    },
  });
  const messages = () => created.map((each) => each.message);
  return { events, created, errors, messages, asked: () => asked };
}

async function until(holds: () => boolean): Promise<void> {
  for (const end = Date.now() + 5_000; !holds(); await new Promise(setImmediate))
    if (Date.now() > end) throw new Error('it did not come true');
}

test('createServiceEvents() tells each text once while it holds, and again when it comes back', async () => {
  const { events, messages } = world();
  events.tell(service, ['a', 'b']);
  events.tell(service, ['b', 'a']);
  await until(() => messages().length === 2);
  events.tell(service, ['a', 'c']);
  await until(() => messages().length === 3);
  events.tell(service, []);
  events.tell(service, ['a']);
  await until(() => messages().length === 4);
  assert.deepEqual(messages(), ['a', 'b', 'c', 'a']);
});

test('createServiceEvents() gives the same text of the same Service the same name, so that one node writes it', async () => {
  const [one, two] = [world(), world()];
  for (const each of [one, two]) each.events.tell(service, ['a', 'b']);
  await until(() => one.created.length === 2 && two.created.length === 2);
  assert.deepEqual(one.created, two.created);
  assert.notEqual(one.created[0]!.name, one.created[1]!.name);
});

test('createServiceEvents() tries again while the API does not answer, says so once, and leaves out what holds no more', async () => {
  const { events, messages, errors, asked } = world(3);
  events.tell(service, ['a']);
  events.tell(service, ['b']);
  await until(() => messages().length === 1);
  assert.deepEqual(messages(), ['b']);
  assert.equal(errors.length, 1);
  assert.ok(asked() >= 4);
});

test('createServiceEvents() tells no more than a handful of one Service', async () => {
  const { events, messages } = world();
  events.tell(
    service,
    Array.from({ length: 1000 }, (_, i) => `endpoint ${i} is ignored`),
  );
  await until(() => messages().length === 20);
  await new Promise(setImmediate);
  assert.equal(messages().length, 20);
});
