import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DropReason, EventType } from '../../kernel/datapath.gen.ts';
import { addresses, createScene, makeEvent } from '../flows/testdata/scene.ts';
import { type CountedFlow, countedFlow, createFlowMetrics } from './flow-metrics.ts';
import { MetricOptionError, metricNames, parseMetric } from './metric-options.ts';

const { web, db, far, world } = addresses;

/** What the wanted metrics say of events. */
function counted(wanted: readonly string[], events: Parameters<typeof makeEvent>[0][], limit = 100) {
  const metrics = createFlowMetrics(wanted.map(parseMetric), limit);
  const into = {} as { -readonly [K in keyof CountedFlow]: CountedFlow[K] };
  const scene = createScene(64, undefined, (words, from, row, seq) => {
    countedFlow(words, from, row, seq, into);
    metrics.count(into);
  });
  for (const each of events) scene.record(makeEvent(each));
  const rows = metrics.counters.flatMap(({ name, cells }) =>
    [...cells()].map(
      ({ labels, value }) =>
        `${name}{${Object.entries(labels)
          .map(([k, v]) => `${k}=${v}`)
          .join(',')}} ${value}`,
    ),
  );
  return { rows, metrics };
}
const denied = { type: EventType.EVENT_DROP, reason: DropReason.DROP_POLICY_DENIED, direction: 1 };

test('flows, drops, flags and verdicts are counted under the ecosystem’s names', () => {
  const { rows } = counted(
    ['flow', 'drop', 'tcp', 'policy'],
    [
      { from: web, to: far, identity: [256, 258], cookie: [7, 0] },
      { from: web, to: far, identity: [256, 258] },
      { from: far, to: db, identity: [258, 257], cookie: [0, 8], ...denied },
    ],
  );
  assert.deepEqual(rows, [
    'hubble_flows_processed_total{protocol=TCP,subtype=to-network,type=Trace,verdict=FORWARDED} 2',
    'hubble_flows_processed_total{protocol=TCP,subtype=,type=Drop,verdict=DROPPED} 1',
    'hubble_drop_total{protocol=TCP,reason=POLICY_DENIED} 1',
    'hubble_tcp_flags_total{family=IPv4,flag=SYN} 2',
    'hubble_policy_verdicts_total{direction=egress,match=l3-l4,action=forwarded} 1',
    'hubble_policy_verdicts_total{direction=egress,match=all,action=forwarded} 1',
    'hubble_policy_verdicts_total{direction=ingress,match=l3-l4,action=dropped} 1',
  ]);
});

test('ends are labelled as asked for: the first context that says something, per direction, and labels of their own', () => {
  const { rows } = counted(
    [
      'drop:sourceContext=workload|pod;destinationContext=dns|ip',
      'port-distribution:labelsContext=source_app,destination_namespace,traffic_direction',
    ],
    [
      { from: far, to: db, identity: [258, 257], ...denied },
      { from: web, to: world, identity: [256, 9], dport: 443 },
    ],
  );
  assert.deepEqual(rows, [
    `hubble_drop_total{protocol=TCP,reason=POLICY_DENIED,source=shop/cart,destination=${db}} 1`,
    'hubble_port_distribution_total{port=443,protocol=TCP,source_app=web,destination_namespace=,traffic_direction=egress} 1',
  ]);
});

test('rows beyond the limit are refused and counted', () => {
  const { rows, metrics } = counted(
    ['port-distribution'],
    [80, 81, 82, 80].map((dport) => ({ from: web, to: far, dport })),
    2,
  );
  assert.deepEqual([rows.length, metrics.counters[0]!.refused], [2, 1]);
  assert.match(rows[0]!, /port=80,protocol=TCP} 2$/);
});

test('what leaves the cluster is counted where it is allowed or denied', () => {
  const { rows } = counted(
    ['flows-to-world:port;syn-only'],
    [
      { from: web, to: world, identity: [256, 9], dport: 443 },
      { from: web, to: world, identity: [256, 9], dport: 443, ...denied },
      { from: web, to: db, identity: [256, 257] },
    ],
  );
  assert.deepEqual(rows, [
    'hubble_flows_to_world_total{protocol=TCP,verdict=FORWARDED,port=443} 1',
    'hubble_flows_to_world_total{protocol=TCP,verdict=DROPPED,port=443} 1',
  ]);
});

test('a wish that cannot be met is refused with what there is', () => {
  for (const [text, complaint] of [
    ['drops', /no metric "drops" \(did you mean drop\?\)/],
    ['drop:sourceContext=pods', /no context "pods" \(did you mean pod\?\)/],
    ['drop:labelsContext=source_pods', /no label "source_pods"/],
    ['drop:query', /drop has no option query/],
    ['dns:query=maybe', /query is given as it is/],
  ] as const)
    assert.throws(
      () => parseMetric(text),
      (error) => error instanceof MetricOptionError && complaint.test(error.message),
    );
  for (const name of metricNames) assert.equal(parseMetric(name).name, name);
  assert.equal(parseMetric('dns:query;ignoreAAAA').ignoreAaaa, true);
});
