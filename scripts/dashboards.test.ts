// A metric that is renamed, or loses a label, must not leave a panel empty without anybody noticing.
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Registry } from 'prom-client';
import { datapathMaps } from '../src/kernel/datapath.gen.ts';
import { defaultMetrics } from '../src/observe/metrics/metric-options.ts';
import type { Agent } from '../src/programs/agent/agent.ts';
import { agentRegistry } from '../src/programs/agent/metrics.ts';
import type { AgentProcesses } from '../src/programs/agent/processes.ts';
import { createOperatorFacts, operatorRegistry } from '../src/programs/operator/metrics.ts';
import { relayRegistry } from '../src/programs/relay/metrics.ts';
import { dashboardJson, dashboards } from './dashboards.ts';

const folder = fileURLToPath(new URL('../deploy/dashboards/', import.meta.url));
const written = globSync(`${folder}*.json`).sort();
const read = (file: string) => JSON.parse(readFileSync(file, 'utf8'));

/** Stands for everything that metrics would read if they were asked for values. */
const anything: unknown = new Proxy(() => {}, { get: () => anything, apply: () => anything });

/** Metrics and their labels, as the programs make them. */
async function exposed(): Promise<Map<string, Set<string>>> {
  const known: Record<string | symbol, unknown> = {
    // What is asked for is there without a flag.
    settings: { metrics: defaultMetrics, metricsSeries: 10, nodeName: 'node1' },
    datapath: {
      map(name: keyof typeof datapathMaps) {
        const { key, value } = datapathMaps[name];
        return { keySize: key.size, valueSize: value.size };
      },
    },
  };
  const agent = new Proxy({}, { get: (_, name) => known[name] ?? anything }) as Agent;
  const counts = { received: 0, sent: 0, late: 0, lost: 0 };
  const registries: Registry[] = [
    agentRegistry(agent, anything as AgentProcesses, '0'.repeat(16), () => undefined).registry,
    operatorRegistry(createOperatorFacts(), []),
    relayRegistry({ nodes: () => [] }, { flows: counts, processes: counts }, []),
  ];
  const found = new Map<string, Set<string>>();
  for (const registry of registries)
    for (const metric of registry.getMetricsAsArray() as unknown as {
      name: string;
      type: string;
      labelNames?: string[];
    }[]) {
      const labels = new Set([...(metric.labelNames ?? []), 'instance', 'job']);
      found.set(metric.name, labels);
      if (metric.type !== 'histogram') continue;
      for (const part of ['bucket', 'sum', 'count']) found.set(`${metric.name}_${part}`, new Set([...labels, 'le']));
    }
  return found;
}

interface Target {
  readonly expr: string;
  readonly legendFormat: string;
}

/** What is wrong with a query, by what there is. */
function problems({ expr, legendFormat }: Target, metrics: ReadonlyMap<string, ReadonlySet<string>>): string[] {
  const names = [...new Set(expr.match(/\b(?:weir|hubble)_\w+/g))];
  if (names.length === 0) return [`${expr} asks for no metric`];
  const labels = [
    ...[...expr.matchAll(/\bby \(([^)]*)\)/g)].flatMap(([, list]) => list!.split(',')),
    ...[...expr.matchAll(/(\w+)(?:!=|=~|!~|=)"/g)].map(([, label]) => label!),
    ...[...legendFormat.matchAll(/\{\{(\w+)\}\}/g)].map(([, label]) => label!),
  ].map((each) => each.trim());
  return names.flatMap((name) => {
    const known = metrics.get(name);
    if (known === undefined) return [`there is no ${name}`];
    return labels.filter((label) => !known.has(label)).map((label) => `${name} has no ${label}`);
  });
}

test('every metric and label that a dashboard asks for is there', async () => {
  const metrics = await exposed();
  assert.ok(written.length > 0);
  for (const file of written)
    for (const { title, targets } of read(file).panels as { title: string; targets: Target[] }[])
      for (const target of targets) assert.deepEqual(problems(target, metrics), [], `${basename(file)}: ${title}`);
});

test('a metric or label that is not there is noticed', async () => {
  const metrics = await exposed();
  const of = (expr: string, legendFormat = '') => problems({ expr, legendFormat }, metrics);
  assert.deepEqual(of('sum(weir_nothing)'), ['there is no weir_nothing']);
  assert.deepEqual(of('sum by (node) (weir_endpoints)'), ['weir_endpoints has no node']);
  assert.deepEqual(of('weir_map_entries{mapp="x"}'), ['weir_map_entries has no mapp']);
  assert.deepEqual(of('weir_endpoints', '{{reason}}'), ['weir_endpoints has no reason']);
  assert.deepEqual(of('sum(1)'), ['sum(1) asks for no metric']);
});

test('the files are what scripts/dashboards.ts says', () => {
  assert.deepEqual(
    written.map((file) => basename(file, '.json')),
    dashboards.map((each) => each.name).sort(),
  );
  for (const each of dashboards)
    assert.deepEqual(
      read(`${folder}${each.name}.json`),
      JSON.parse(JSON.stringify(dashboardJson(each))),
      'run scripts/generate-dashboards.ts',
    );
});
