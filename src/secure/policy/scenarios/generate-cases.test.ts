import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createPolicyCompiler } from '../compile.ts';
import { applyDelta, createCompiledMaps, lookupConnection } from '../compiled-lookup.ts';
import { evaluate } from '../evaluate.ts';
import { modelChanges } from '../model-changes.ts';
import { caseWorld, generateCases, type PolicyCase } from './generate-cases.ts';
import { mixedCases } from './mixed-cases.ts';
import { describeProbe, plannedAddresses, probeConnection, scenarioModel } from './scenario.ts';

const cases = generateCases();
const mixed = mixedCases(Number(process.env.WEIR_MIXED_CASES ?? 100));

test('generateCases() makes at least 200 different cases, always the same', () => {
  assert.ok(cases.length >= 200, `${cases.length} cases`);
  assert.equal(new Set(cases.map((one) => one.name)).size, cases.length);
  assert.ok(new Set(cases.map((one) => JSON.stringify(one.policies))).size >= 200);
  assert.deepEqual(generateCases(), cases);
});

for (const family of [4, 6] as const) {
  for (const [what, some] of [
    ['generated', cases],
    ['mixed', mixed],
  ] as const)
    test(`IPv${family}: all ${what} cases come out alike from the evaluator and from compiled rows of one compiler`, () => {
      comeOutAlike(family, some);
    });
}

function comeOutAlike(family: 4 | 6, some: readonly PolicyCase[]): void {
  const addresses = plannedAddresses(caseWorld, family);
  const nodes = [1, 2].map((node) => ({ node, compiler: createPolicyCompiler(), maps: createCompiledMaps() }));
  const outcomes = { allowed: 0, denied: 0 };
  for (const { name, policies, probes } of some) {
    const models = nodes.map(({ node, compiler, maps }) => {
      const model = scenarioModel({ ...caseWorld, policies }, addresses, node);
      applyDelta(maps, compiler.update(modelChanges(model)));
      return model;
    });
    for (const probe of probes) {
      const connection = probeConnection(probe, addresses);
      const wanted = evaluate(models[0]!, connection);
      const found = nodes.map(({ maps }) => lookupConnection(maps, connection));
      for (const end of ['egress', 'ingress'] as const) {
        const allowed = found.every((verdict) => verdict[end].allowed);
        assert.equal(allowed, wanted[end].allowed, `${name}: ${end} of ${describeProbe(probe)}`);
      }
      outcomes[wanted.egress.allowed && wanted.ingress.allowed ? 'allowed' : 'denied']++;
    }
  }
  const least = some.length * 10;
  assert.ok(outcomes.allowed > least && outcomes.denied > least, JSON.stringify(outcomes));
}
