// OTLP against a collector of OpenTelemetry.
import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { test } from 'node:test';
import { exportOver } from './export-flows.ts';
import { type LogRecord, startCollector } from './otel-collector.ts';

const uidOf = (record: LogRecord) =>
  (record.attributes.find((each) => each.key === 'log.record.uid')?.value as { stringValue: string }).stringValue;

test('a collector has every flow with its attributes, although it was killed in between', async (t) => {
  const collector = await startCollector(t);
  if (collector === undefined) return;
  const batch = 100;
  const yaml = `{name: o, type: otlp, url: "${collector.url}", batch: {events: ${batch}, seconds: 0}}`;
  const events = await exportOver(t, yaml, 3_000, collector.restart);
  const records = collector.logs().flatMap((each) => each.scopeLogs.flatMap((scope) => scope.logRecords));
  console.log(records.length, JSON.stringify(collector.logs()[0]).slice(0, 3000));
  const byUid = Map.groupBy(records, uidOf);
  for (const event of events) {
    const [record] = byUid.get(event.id) ?? [];
    assert.deepEqual(record, JSON.parse(event.body));
  }
});
