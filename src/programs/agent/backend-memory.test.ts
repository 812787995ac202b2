import assert from 'node:assert/strict';
import { test } from 'node:test';
import { addressBytes } from '../../connect/datapath/address-keys.ts';
import type { FrontendRow } from '../../core/rows.ts';
import { createTable } from '../../core/table.ts';
import { createBackendMemory } from './backend-memory.ts';

const frontend = (key: string, backends: readonly string[], kind = 'ClusterIP') =>
  ({ key, kind, backends: backends.map((address) => ({ address, port: 80 })) }) as unknown as FrontendRow & {
    key: string;
  };

function memory(sockets: readonly (readonly [string, number])[] = []) {
  const frontends = createTable<FrontendRow & { key: string }>({ name: 'frontends', key: (row) => row.key });
  frontends.upsert([frontend('a', ['10.0.0.1', 'fd00::1'])]);
  const made = createBackendMemory(frontends, () => sockets.map(([text, port]) => [addressBytes(text), port] as const));
  const mayHave = (address: string, port = 80) => {
    const words = new Int32Array(6);
    new Uint8Array(words.buffer).set(addressBytes(address), 8);
    return made.mayHave(words, 2, port);
  };
  return { frontends, mayHave };
}

test('createBackendMemory() knows what frontends have, had, and what sockets still talk to', () => {
  const { frontends, mayHave } = memory([['10.0.0.9', 81]]);
  assert.ok(mayHave('10.0.0.1') && mayHave('fd00::1') && mayHave('10.0.0.9', 81));
  frontends.upsert([frontend('b', ['10.0.0.2'])]);
  assert.ok(mayHave('10.0.0.2'));
  frontends.delete(['b']);
  assert.ok(mayHave('10.0.0.2'), 'its connections are not over');
  assert.deepEqual([mayHave('10.0.0.3'), mayHave('10.0.0.1', 81), mayHave('10.0.0.9')], [false, false, false]);
  frontends.upsert([frontend('c', ['10.0.0.3'], 'HostPort')]);
  assert.equal(mayHave('10.0.0.3'), false);
});

test('createBackendMemory() says yes to every backend of many, and to few others', () => {
  const { frontends, mayHave } = memory();
  const address = (i: number) => `10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`;
  const all = Array.from({ length: 50_000 }, (_, i) => address(i));
  frontends.upsert([frontend('many', all)]);
  assert.ok(all.every((each) => mayHave(each)));
  const wrong = all.filter((each) => mayHave(each, 81)).length;
  assert.ok(wrong < 1_000, `${wrong} of ${all.length}`);
});
