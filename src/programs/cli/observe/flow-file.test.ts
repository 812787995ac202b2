import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { create, fromJson } from '@bufbuild/protobuf';
import { anyPack, StructSchema } from '@bufbuild/protobuf/wkt';
import { FlowSchema } from '../../../../proto/gen/flow/flow_pb.js';
import { GetFlowsResponseSchema } from '../../../../proto/gen/observer/observer_pb.js';
import { parseFlowLine, readFlowFile } from './flow-file.ts';
import { createFlowCounter, statsText } from './flow-stats.ts';
import { flowPrinter } from './flow-text.ts';

const more = { source_process: { pid: 7, binary: '/bin/curl' }, report: 'end' };
const flow = create(FlowSchema, {
  time: { seconds: 5n, nanos: 7 },
  verdict: 2,
  dropReasonDesc: 133,
  nodeName: 'node1',
  source: { namespace: 'shop', podName: 'web-0', identity: 300 },
  destination: { identity: 9 },
  l4: { protocol: { case: 'TCP', value: { destinationPort: 80 } } },
  extensions: anyPack(StructSchema, fromJson(StructSchema, more)),
});
const response = create(GetFlowsResponseSchema, {
  responseTypes: { case: 'flow', value: flow },
  nodeName: 'node1',
  time: flow.time,
});

async function read(t: TestContext, text: string) {
  const folder = mkdtempSync(join(tmpdir(), 'weir-file-'));
  t.after(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, 'flows.json'), text);
  const said: string[] = [];
  const got = [];
  for await (const item of readFlowFile(join(folder, 'flows.json'), (message) => said.push(message))) got.push(item);
  return { got, said };
}

for (const format of ['json', 'jsonpb'] as const)
  test(`what ${format} printed is read as it was`, async (t) => {
    const line = flowPrinter(format, { colors: false, nodeNames: true })(response);
    const { got, said } = await read(t, `${line}\n${line}`);
    assert.deepEqual(said, []);
    assert.deepEqual(
      got.map((each) => each.response),
      [response, response],
    );
    assert.equal(got[0]!.timeNs, 5_000_000_007n);
  });

test('a flow alone on a line is one, and so is a loss', () => {
  const alone = parseFlowLine('{"time":"1970-01-01T00:00:05Z","verdict":"DROPPED","node_name":"n","unheard_of":1}');
  assert.ok(typeof alone !== 'string' && alone.responseTypes.case === 'flow');
  assert.equal(alone.responseTypes.value.verdict, 2);
  assert.equal(alone.nodeName, 'n');
  const lost = parseFlowLine('{"lost_events":{"num_events_lost":"4"}}');
  assert.ok(typeof lost !== 'string' && lost.responseTypes.case === 'lostEvents');
});

test('lines that are no flows are named, and a file of them is refused', async (t) => {
  const good = '{"flow":{"verdict":"DROPPED"}}';
  const { got, said } = await read(t, `nothing\n${good}\n[]\n{"a":1}\n{"flow":5}\n`);
  assert.equal(got.length, 1);
  assert.equal(said.length, 4);
  assert.match(said[0]!, /line 1: is no JSON/);
  assert.match(said[3]!, /4 lines/);
  await assert.rejects(read(t, 'nothing\n'), /has no flows/);
});

test('stats count by verdict, drop reason, pod and port', () => {
  const counter = createFlowCounter();
  counter.add(flow);
  counter.add(flow);
  counter.add(create(FlowSchema, { verdict: 1, source: { namespace: 'a', podName: 'b\u001b' } }));
  counter.lose(3);
  const stats = counter.stats();
  assert.deepEqual(stats.verdicts, [
    { name: 'DROPPED', flows: 2, dropped: 2 },
    { name: 'FORWARDED', flows: 1, dropped: 0 },
  ]);
  assert.deepEqual(stats.dropReasons, [{ name: 'POLICY_DENIED', flows: 2, dropped: 2 }]);
  assert.deepEqual(
    stats.pods.map((each) => [each.name, each.flows, each.dropped]),
    [
      ['shop/web-0', 2, 2],
      ['a/b\u001b', 1, 0],
    ],
  );
  assert.equal(stats.ports[0]!.name, 'tcp/80');
  const text = statsText(stats, { most: 1 });
  assert.match(text, /^3 flows, 3 events lost\n/);
  assert.match(text, /and 1 more\n/);
  assert.ok(!statsText(stats, { most: 9 }).includes('\u001b'));
});
