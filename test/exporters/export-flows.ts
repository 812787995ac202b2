// Flows on their way to a receiver that has trouble in between.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { createSink } from '../../src/observe/export/create-sink.ts';
import { createEventEncoder } from '../../src/observe/export/encode-event.ts';
import { parseExportConfig } from '../../src/observe/export/export-config.ts';
import { startExporter } from '../../src/observe/export/exporter.ts';
import type { PrometheusMetric } from '../../src/observe/export/otlp-sink.ts';
import { until } from '../../src/observe/export/testdata/receivers.ts';
import { addresses, createScene, makeEvent } from '../../src/observe/flows/testdata/scene.ts';

/** Begins to export `count` flows, which `offer` hands over. */
export async function startExport(
  t: TestContext,
  yaml: string,
  count: number,
  metrics?: () => Promise<readonly PrometheusMetric[]>,
) {
  const scene = createScene(count);
  for (let i = 0; i < count; i++)
    scene.record(makeEvent({ from: addresses.web, to: i % 2 === 0 ? addresses.far : addresses.db, sport: 1024 + i }));
  const [config] = parseExportConfig(`exporters: [${yaml}]`, 'test', scene.context);
  const folder = mkdtempSync(join(tmpdir(), 'weir-exporters-'));
  const warnings: string[] = [];
  const exporter = startExporter({
    config: config!,
    context: scene.context,
    folder,
    sink: await createSink(config!, scene.context, metrics, (message) => warnings.push(message)),
    warn: (message, fields) => warnings.push(`${message}: ${JSON.stringify(fields)}`),
  });
  t.after(async () => {
    await exporter.close();
    rmSync(folder, { recursive: true, force: true });
  });
  const rows = scene.rows();
  const encode = createEventEncoder(config!, scene.context);
  return {
    exporter,
    warnings,
    /** As they are sent. */
    events: rows.map((row) => encode({ kind: 'flow', row })),
    offer(from: number, to: number) {
      for (const row of rows.slice(from, to)) exporter.offerFlow(row);
      exporter.flush();
    },
    async whenAllSent() {
      const state = () => `all has arrived: ${warnings.join('\n')}`;
      await until(state(), () => exporter.status().queue.events === 0, 120_000).catch(() => assert.fail(state()));
      const { refused, lost } = exporter.status();
      assert.deepEqual([refused, lost], [0, 0], warnings.join('\n'));
    },
  };
}

/** Exports `count` flows, with a receiver that is ended and begun again in the middle. Returns them as they were sent. */
export async function exportOver(t: TestContext, yaml: string, count: number, restart: () => Promise<void>) {
  const { exporter, events, offer, whenAllSent } = await startExport(t, yaml, count);
  offer(0, count / 2);
  await until('something has arrived', () => exporter.status().sent > 0, 60_000);
  const restarted = restart();
  offer(count / 2, count);
  await restarted;
  await whenAllSent();
  return events;
}

/** Exports flows that do not get through, for what is said in the `warning`, until `mend` was called. */
export async function exportMended(t: TestContext, yaml: string, warning: RegExp, mend: () => void) {
  const { exporter, events, offer, warnings, whenAllSent } = await startExport(t, yaml, 10);
  offer(0, 10);
  await until('there is a warning', () => warnings.length > 0, 60_000);
  assert.match(warnings[0]!, warning);
  assert.equal(exporter.status().sent, 0);
  mend();
  await whenAllSent();
  return events;
}
