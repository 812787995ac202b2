import assert from 'node:assert/strict';
import { test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { FlowSchema } from '../../../proto/gen/flow/flow_pb.js';
import { CelTooDear, compileCel } from './cel-filter.ts';

const flow = create(FlowSchema, {
  verdict: 2,
  nodeName: 'node1',
  source: { podName: 'web-1', labels: ['k8s:app=web', 'k8s:tier=front'] },
  l4: { protocol: { case: 'TCP', value: { sourcePort: 1000, destinationPort: 8080 } } },
});

for (const [text, expected] of [
  ['true', true],
  ['_flow.verdict == Verdict.DROPPED', true],
  ['_flow.verdict == flow.Verdict.FORWARDED', false],
  ['_flow.source.pod_name.startsWith("web") && _flow.l4.TCP.destination_port in [80, 8080]', true],
  ['has(_flow.l7)', false],
  ['_flow.destination.pod_name == ""', true],
  ['1 / (_flow.verdict - _flow.verdict) == 1', false],
  ['_flow.source.labels.filter(l, l.startsWith("k8s:")).size() == 2', true],
] as const) {
  test(`compileCel() ${text}`, () => {
    const compiled = compileCel(text);
    assert.ok(compiled.ok, compiled.ok ? '' : compiled.reason);
    assert.equal(compiled.value(flow), expected);
  });
}

const list = `[${Array.from({ length: 200 }, (_, i) => i).join(',')}]`;
for (const [name, text] of [
  ['lists within lists', `${list}.all(a, ${list}.all(b, ${list}.all(c, a + b + c < 0)))`],
  ['labels within labels within labels', 'labels.all(a, labels.all(b, labels.all(c, a != b || b != c)))'],
  ['a list that grows', `(${list}+${list}+${list}+${list}).all(a, (${list}+${list}).all(b, a != b))`],
  ['a pattern made of the flow', '"a".matches(_flow.source.pod_name)'],
  ['a pattern that repeats', '_flow.source.pod_name.matches("((a{90}){90}){90}")'],
  ['a long pattern in a loop', `_flow.source.labels.all(l, l.matches("${'(a|b)*'.repeat(150)}"))`],
  ['deep nesting', `${'('.repeat(2000)}true${')'.repeat(2000)}`],
] as const) {
  test(`compileCel() takes no ${name}, and says so at once`, () => {
    const started = performance.now();
    const full = text.replaceAll(/(?<![.\w])labels/g, '_flow.source.labels');
    const compiled = compileCel(full);
    if (compiled.ok) compiled.value(flow);
    else assert.ok(compiled.reason.length < 300);
    // Nesting alone costs nothing: it may be taken.
    assert.equal(compiled.ok, name === 'deep nesting' && compiled.ok);
    assert.ok(performance.now() - started < 500, `${performance.now() - started} ms`);
  });
}

test('compileCel() gives up an expression that keeps on being slow', () => {
  // The estimate takes a flow to have few labels; this one has thousands.
  const compiled = compileCel('_flow.source.labels.all(a, _flow.source.labels.all(b, b != "x"))');
  assert.ok(compiled.ok);
  const large = create(FlowSchema, { source: { labels: Array.from({ length: 300 }, (_, i) => `k8s:l${i}=x`) } });
  assert.throws(() => {
    for (let i = 0; i < 50; i++) compiled.value(large);
  }, CelTooDear);
});
