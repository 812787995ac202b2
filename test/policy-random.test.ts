// Random clusters with policies of all kinds: what is compiled must be what the evaluator says, for very many of them.
// WEIR_POLICY_MINUTES=240 goes on for four hours: a run for the night.
import { test } from 'node:test';
import fc from 'fast-check';
import { assertAgrees } from '../src/secure/policy/agreement.ts';
import { createPolicyCompiler } from '../src/secure/policy/compile.ts';
import { applyDelta, createCompiledMaps } from '../src/secure/policy/compiled-lookup.ts';
import { modelChanges } from '../src/secure/policy/model-changes.ts';
import { arbitraryConnections, arbitraryModel } from '../src/secure/policy/random-model.ts';

const sets = Number(process.env.WEIR_POLICY_SETS ?? 20_000);
const minutes = Number(process.env.WEIR_POLICY_MINUTES ?? 0);
const perRound = 1_000;

test(`compiled rows agree with the evaluator on ${minutes > 0 ? `${minutes} minutes of` : sets} random sets of policies`, () => {
  const endMs = Date.now() + minutes * 60_000;
  for (let done = 0; minutes > 0 ? Date.now() < endMs : done < sets; done += perRound) {
    fc.assert(
      fc.property(arbitraryModel, arbitraryConnections, (model, connections) => {
        const compiler = createPolicyCompiler();
        const maps = createCompiledMaps();
        applyDelta(maps, compiler.update(modelChanges(model)));
        assertAgrees(model, compiler, maps, connections);
      }),
      { numRuns: perRound },
    );
  }
});
