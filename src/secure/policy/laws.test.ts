// What must hold of policies whatever they are: laws that users count on, tried on random clusters.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { PolicyRow } from '../../core/rows.ts';
import { evaluate, type PolicyModel } from './evaluate.ts';
import { arbitraryConnections, arbitraryModel } from './random-model.ts';

const runs = Number(process.env.WEIR_PROPERTY_RUNS ?? 300);

const isAllowed = (model: PolicyModel, connection: Parameters<typeof evaluate>[1]) => {
  const { egress, ingress } = evaluate(model, connection);
  return { egress: egress.allowed, ingress: ingress.allowed };
};

/** Compares all ends of all connections with and without something. */
function compare(
  before: PolicyModel,
  after: PolicyModel,
  connections: Parameters<typeof evaluate>[1][],
  check: (before: boolean, after: boolean, text: string) => void,
): void {
  for (const connection of connections) {
    const [was, is] = [isAllowed(before, connection), isAllowed(after, connection)];
    for (const end of ['egress', 'ingress'] as const)
      check(was[end], is[end], `${end} of ${JSON.stringify(connection)}`);
  }
}

/** A model, and one more policy for it: one that another model has. */
const withOneMore = fc
  .tuple(arbitraryModel, arbitraryModel)
  .filter(([, other]) => other.policies.length > 0)
  .map(([model, other]) => ({ model, more: { ...other.policies[0]!, key: 'more', name: 'more', staged: false } }));

const only = (policy: PolicyRow, action: 'allow' | 'deny'): PolicyRow => {
  const rules = (list: PolicyRow['ingress']) => list.map((rule) => ({ ...rule, action }));
  return { ...policy, tier: 'normal', priority: 0, ingress: rules(policy.ingress), egress: rules(policy.egress) };
};

test('the order in which policies come does not matter', () => {
  fc.assert(
    fc.property(arbitraryModel, arbitraryConnections, (model, connections) => {
      const reversed = { ...model, policies: model.policies.toReversed() };
      compare(model, reversed, connections, (was, is, text) => assert.equal(is, was, text));
    }),
    { numRuns: runs },
  );
});

test('an allow more, where the direction is isolated already or the policy does not isolate, closes nothing', () => {
  fc.assert(
    fc.property(withOneMore, arbitraryConnections, ({ model, more }, connections) => {
      const allow = { ...only(more, 'allow'), isolates: { ingress: false, egress: false } };
      const after = { ...model, policies: [...model.policies, allow] };
      compare(model, after, connections, (was, is, text) => assert.ok(is || !was, text));
      // One that isolates what a policy of the same subject isolates already.
      const twin = { ...allow, key: 'twin', ingress: [], egress: [], isolates: { ingress: true, egress: true } };
      const isolated = { ...model, policies: [...model.policies, twin] };
      const both = { ...model, policies: [...isolated.policies, { ...allow, isolates: twin.isolates }] };
      compare(isolated, both, connections, (was, is, text) => assert.ok(is || !was, text));
    }),
    { numRuns: runs },
  );
});

test('a deny more opens nothing, whether its policy isolates or not', () => {
  fc.assert(
    fc.property(withOneMore, fc.boolean(), arbitraryConnections, ({ model, more }, isolates, connections) => {
      const deny = { ...only(more, 'deny'), ...(!isolates && { isolates: { ingress: false, egress: false } }) };
      const after = { ...model, policies: [...model.policies, deny] };
      compare(model, after, connections, (was, is, text) => assert.ok(was || !is, text));
    }),
    { numRuns: runs },
  );
});

test('a deny wins over every allow of its tier', () => {
  fc.assert(
    fc.property(arbitraryModel, arbitraryConnections, (model, connections) => {
      const normal = {
        ...model,
        policies: model.policies.filter((policy) => policy.tier === 'normal' && !policy.staged),
      };
      const denials = normal.policies.map((policy) => ({
        ...policy,
        ingress: policy.ingress.filter((rule) => rule.action === 'deny'),
        egress: policy.egress.filter((rule) => rule.action === 'deny'),
        isolates: { ingress: false, egress: false },
      }));
      const deniesOnly = { ...normal, policies: denials };
      compare(deniesOnly, normal, connections, (was, is, text) => assert.ok(was || !is, text));
    }),
    { numRuns: runs },
  );
});

test('staged policies change nothing but what is reported', () => {
  fc.assert(
    fc.property(withOneMore, arbitraryConnections, ({ model, more }, connections) => {
      const after = { ...model, policies: [...model.policies, { ...more, staged: true }] };
      compare(model, after, connections, (was, is, text) => assert.equal(is, was, text));
      const enforced = { ...model, policies: [...model.policies, more] };
      for (const connection of connections) {
        const [staged, real] = [evaluate(after, connection), evaluate(enforced, connection)];
        for (const end of ['egress', 'ingress'] as const)
          assert.equal(staged[end].stagedAllowed, real[end].stagedAllowed, 'it reports what it would do');
      }
    }),
    { numRuns: runs },
  );
});
