import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createLostNumbers } from './lost-numbers.ts';

test('createLostNumbers() counts each number once, however it was lost, and none that the reader is past', () => {
  const step = fc.oneof(fc.record({ add: fc.tuple(fc.nat(40), fc.nat(8)) }), fc.record({ passed: fc.nat(40) }));
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), fc.nat(40), fc.nat(40), (steps, from, until) => {
      const lost = createLostNumbers();
      const model = new Set<number>();
      for (const each of steps)
        if ('add' in each) {
          const [first, many] = each.add;
          lost.add(first, first + many);
          for (let seq = first; seq < first + many; seq++) model.add(seq);
        } else {
          lost.passed(each.passed);
          for (const seq of [...model]) if (seq <= each.passed) model.delete(seq);
        }
      assert.equal(lost.count(), model.size);
      assert.equal(lost.count(from, until), [...model].filter((seq) => seq >= from && seq < until).length);
    }),
  );
});
