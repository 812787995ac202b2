import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createOperatorFacts, forgetTerm, operatorRegistry } from './metrics.ts';

const pools = [
  { cidr: '10.0.0.0/16', blockBits: 24 },
  { cidr: 'fd00::/48', blockBits: 64 },
];

test('blocks are counted by the pool they are of, used and free', async () => {
  const facts = createOperatorFacts();
  const registry = operatorRegistry(facts, pools);
  const rows = async (name: string) =>
    (await registry.metrics()).split('\n').filter((line) => line.startsWith(name) && !line.startsWith('#'));
  assert.deepEqual(await rows('weir_operator_blocks'), [], 'who does not lead knows of none');
  facts.leading = true;
  facts.blocks = () => [{ cidr: '10.0.1.0/24' }, { cidr: '10.0.2.0/24' }, { cidr: 'fd00:0:0:7::/64' }];
  facts.watches.set('pods', false);
  assert.deepEqual(await rows('weir_operator_blocks'), [
    'weir_operator_blocks{pool="10.0.0.0/16",state="used"} 2',
    'weir_operator_blocks{pool="10.0.0.0/16",state="free"} 254',
    'weir_operator_blocks{pool="fd00::/48",state="used"} 1',
    'weir_operator_blocks{pool="fd00::/48",state="free"} 65535',
  ]);
  assert.deepEqual(await rows('weir_operator_leading'), ['weir_operator_leading 1']);
  assert.deepEqual(await rows('weir_operator_watch'), ['weir_operator_watch_connected{resource="pods"} 0']);
  forgetTerm(facts);
  assert.deepEqual(await rows('weir_operator_leading'), ['weir_operator_leading 0']);
  assert.deepEqual(await rows('weir_operator_watch'), []);
});
