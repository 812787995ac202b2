import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createPolicyCompiler } from '../compile.ts';
import { applyDelta, createCompiledMaps, lookupConnection } from '../compiled-lookup.ts';
import { evaluate } from '../evaluate.ts';
import { modelChanges } from '../model-changes.ts';
import { describeProbe, plannedAddresses, probeConnection, scenarioModel } from './scenario.ts';
import { writtenScenarios } from './written.ts';

for (const scenario of writtenScenarios) {
  for (const family of [4, 6] as const) {
    test(`IPv${family}: ${scenario.name}`, () => {
      const addresses = plannedAddresses(scenario, family);
      const nodes = [1, 2].map((node) => {
        const model = scenarioModel(scenario, addresses, node);
        const maps = createCompiledMaps();
        applyDelta(maps, createPolicyCompiler().update(modelChanges(model)));
        return { model, maps };
      });
      const model = nodes[0]!.model;
      for (const probe of scenario.probes) {
        const connection = probeConnection(probe, addresses);
        const { egress, ingress } = evaluate(model, connection);
        assert.equal(outcome(egress.allowed, ingress.allowed), probe.expect, `evaluator: ${describeProbe(probe)}`);
        // Each end is judged on its own node.
        const compiled = nodes.map(({ maps }) => lookupConnection(maps, connection));
        const all = (end: 'egress' | 'ingress') => compiled.every((verdict) => verdict[end].allowed);
        assert.equal(outcome(all('egress'), all('ingress')), probe.expect, `compiled: ${describeProbe(probe)}`);
      }
    });
  }
}

function outcome(egress: boolean, ingress: boolean): string {
  if (!egress) return 'egress denied';
  return ingress ? 'allowed' : 'ingress denied';
}
