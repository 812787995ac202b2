import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { evaluate, evaluateParties, type PolicyModel } from '../evaluate.ts';
import { arbitraryConnections, arbitraryModel } from '../random-model.ts';
import { diffPolicies, type PolicyDiff } from './diff-policies.ts';
import { pointOf, serviceOf } from './port-space.ts';

const points = [
  ...[6, 17, 132].flatMap((protocol) =>
    [1, 78, 79, 80, 81, 82, 442, 443, 444, 8080, 65_534, 65_535].map((port) => pointOf(protocol, port)),
  ),
  ...[1, 58].flatMap((protocol) => [0, 1, 3, 8, 128, 255].map((type) => pointOf(protocol, type))),
  pointOf(47, 0),
  pointOf(50, 0),
];

/** A model, and another with some of its policies changed and its namespaces perhaps, too. */
const twoModels = fc
  .tuple(arbitraryModel, arbitraryModel, fc.nat(3), fc.boolean())
  .map(([one, two, kept, namespaces]) => {
    const after: PolicyModel = {
      ...one,
      ...(namespaces && { namespaces: two.namespaces }),
      policies: [
        ...one.policies.slice(0, kept),
        ...two.policies.filter(({ key }) => !one.policies.slice(0, kept).some((each) => each.key === key)),
      ],
    };
    return [one, after] as const;
  });

const allowed = (verdict: ReturnType<typeof evaluate>): boolean => verdict.egress.allowed && verdict.ingress.allowed;

function said(diff: PolicyDiff): Set<string> {
  const texts = new Set<string>();
  for (const { change, from, to, spans } of diff.groups) {
    assert.equal(from.take(Number.POSITIVE_INFINITY).length, from.count);
    assert.equal(to.take(Number.POSITIVE_INFINITY).length, to.count);
    for (const source of from.take(Number.POSITIVE_INFINITY)) {
      for (const destination of to.take(Number.POSITIVE_INFINITY)) {
        for (const point of points) {
          if (!spans.some(([first, last]) => first <= point && point <= last)) continue;
          const text = `${source} ${destination} ${point} ${change}`;
          assert.ok(!texts.has(text), `told twice: ${text}`);
          texts.add(text);
        }
      }
    }
  }
  return texts;
}

test('diffPolicies() says what evaluating every pair of ends and every port says', () => {
  fc.assert(
    fc.property(twoModels, ([before, after]) => {
      const diff = diffPolicies(before, after);
      const expected = new Set<string>();
      for (const [i, source] of diff.ends.entries()) {
        for (const [j, destination] of diff.ends.entries()) {
          if ((source.families & destination.families) === 0) continue;
          for (const point of points) {
            const [was, is] = [before, after].map((model) =>
              allowed(evaluateParties(model, source.party, destination.party, serviceOf(point))),
            );
            if (was !== is) expected.add(`${i} ${j} ${point} ${is ? 'now allowed' : 'now denied'}`);
          }
        }
      }
      assert.deepEqual([...said(diff)].sort(), [...expected].sort());
      if (expected.size > 0) assert.ok(diff.nowAllowed + diff.nowDenied > 0);
    }),
    { numRuns: 60 },
  );
});

test('diffPolicies() finds every connection between addresses that changes, and nothing where none does', () => {
  fc.assert(
    fc.property(twoModels, arbitraryConnections, ([before, after], connections) => {
      const diff = diffPolicies(before, after);
      for (const connection of connections) {
        const was = allowed(evaluate(before, connection));
        const is = allowed(evaluate(after, connection));
        if (was !== is) assert.ok(diff.groups.length > 0, JSON.stringify(connection));
        if (was !== is) {
          const change = is ? 'now allowed' : 'now denied';
          const point = pointOf(connection.protocol, connection.port);
          assert.ok(
            diff.groups.some(
              (group) =>
                group.change === change && group.spans.some(([first, last]) => first <= point && point <= last),
            ),
          );
        }
      }
      assert.equal(diffPolicies(before, before).groups.length, 0);
      assert.equal(diffPolicies(after, after).groups.length, 0);
    }),
    { numRuns: 150 },
  );
});
