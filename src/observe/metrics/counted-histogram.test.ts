import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Histogram, Registry } from 'prom-client';
import { createCountedHistogram } from './counted-histogram.ts';

test('createCountedHistogram() is served as the library’s own histogram is', async () => {
  const options = { name: 'weir_a_seconds', help: 'A.', buckets: [0.1, 1, 2] };
  const registries = [new Registry(), new Registry()] as const;
  for (const each of registries) each.setContentType(Registry.OPENMETRICS_CONTENT_TYPE as never);
  const theirs = new Histogram({ ...options, registers: [registries[0]], enableExemplars: true });
  const ours = createCountedHistogram({ ...options, uuid: (seq) => `flow-${seq}` });
  registries[1].registerMetric(ours.metric);
  const same = async () => {
    const [expected, actual] = await Promise.all(
      registries.map(async (each) => (await each.metrics()).replace(/ \d+\.\d+$/gm, ' TIME')),
    );
    assert.equal(actual, expected);
  };
  theirs.zero({});
  await same();
  for (const [seq, value] of [0.1, 0.5, 3, 0.75, 2.5].entries()) {
    theirs.observe({ value, exemplarLabels: { flow: `flow-${seq}` } });
    ours.observe(value, seq);
  }
  await same();
});
