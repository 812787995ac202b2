import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { portRangePrefixes, prefixNumber, widen } from './port-prefix.ts';

const portNumber = fc.integer({ min: 0, max: 65_535 });

test('portRangePrefixes() covers each port of the range once and no other', () => {
  fc.assert(
    fc.property(portNumber, portNumber, fc.array(portNumber), (a, b, probes) => {
      const [first, last] = a < b ? [a, b] : [b, a];
      const prefixes = portRangePrefixes(6, first, last);
      assert.ok(prefixes.length <= 30);
      for (const port of [first, last, first - 1, last + 1, ...probes]) {
        if (port < 0 || port > 65_535) continue;
        const covering = prefixes.filter((prefix) => {
          const probe = widen({ protocol: 6, port, prefixBits: 24 }, prefix.prefixBits);
          return prefixNumber(probe) === prefixNumber(prefix);
        });
        assert.equal(covering.length, port >= first && port <= last ? 1 : 0, `${port} in ${first}-${last}`);
      }
    }),
  );
});

test('portRangePrefixes() uses as few prefixes as the edges allow', () => {
  assert.deepEqual(portRangePrefixes(6, 0, 65_535), [{ protocol: 6, port: 0, prefixBits: 8 }]);
  assert.deepEqual(portRangePrefixes(6, 80, 80), [{ protocol: 6, port: 80, prefixBits: 24 }]);
  assert.deepEqual(portRangePrefixes(17, 32_768, 65_535), [{ protocol: 17, port: 32_768, prefixBits: 9 }]);
});
