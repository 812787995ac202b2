// How many events a second one core takes from the kernel's ring into flows: decoding, naming both ends, keeping the row.
// Then the whole way to a subscriber, and what a reader costs: building and encoding messages, beside (reference) the usual
// library of protobuf.
// usage: flow-pipeline.ts [--json]
import { parseArgs } from 'node:util';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { FlowFilterSchema, FlowSchema, Verdict } from '../proto/gen/flow/flow_pb.js';
import { event } from '../src/kernel/datapath.gen.ts';
import { readRing, ringOver } from '../src/kernel/ring-buffer.ts';
import { createFlowEncoder } from '../src/observe/flows/encode-flow.ts';
import { compileFilters } from '../src/observe/flows/flow-filter.ts';
import type { FlowRow } from '../src/observe/flows/flow-row.ts';
import { type FlowSink, readFlows } from '../src/observe/flows/read-flows.ts';
import { addresses, createScene, makeEvent } from '../src/observe/flows/testdata/scene.ts';
import { median, printReport, quantile } from './report.ts';

const { values } = parseArgs({ options: { json: { type: 'boolean', default: false } } });
const page = 4096;
const ringBytes = 4 << 20;
const recordBytes = event.size + 8;
const rounds = 15;

/** A ring as the kernel leaves it, full of connections of the kinds a node sees. */
function fullRing() {
  const data = new ArrayBuffer(page + 2 * ringBytes);
  const view = new DataView(data, page);
  const bytes = new Uint8Array(data, page);
  const kinds = [
    { from: addresses.web, to: addresses.db, identity: [256, 257], cookie: [0, 7] },
    { from: addresses.far, to: addresses.db, identity: [258, 257], cookie: [0, 7] },
    { from: addresses.web6, to: 'fd44:1::9', identity: [256, 10] },
    { from: addresses.web, to: addresses.db, identity: [256, 257], cookie: [0, 8], type: 4, reason: 133, direction: 1 },
    { from: addresses.far, to: addresses.db, identity: [258, 257], cookie: [0, 7], type: 3, reason: 1 },
  ].map((kind) => event.encode(makeEvent(kind)));
  let at = 0;
  let count = 0;
  // Records lie in the ring as in its mirror.
  for (; at + recordBytes <= ringBytes; at += recordBytes) {
    const record = kinds[count++ % kinds.length]!;
    for (const start of [at, at + ringBytes]) {
      view.setUint32(start, event.size, true);
      bytes.set(record, start + 8);
    }
  }
  return { data, end: at, count };
}

const { data, end, count } = fullRing();
const producer = new BigUint64Array(data, 0, 1);
const scene = createScene(65_536);
const rates: number[] = [];
const rss = process.memoryUsage().rss;
for (let round = 0; round < rounds + 3; round++) {
  producer[0] = BigInt(end);
  const ring = ringOver(new ArrayBuffer(page), data, page, () => {});
  const started = process.cpuUsage();
  let read = 0;
  for (let repeat = 0; repeat < 10; repeat++) {
    const again = repeat === 0 ? ring : ringOver(new ArrayBuffer(page), data, page, () => {});
    read += readRing(again, scene.recorder.record);
  }
  const used = process.cpuUsage(started);
  if (read !== count * 10) throw new Error(`${read} of ${count * 10} records were read`);
  if (round >= 3) rates.push((read / (used.user + used.system)) * 1e6);
}

const build: number[] = [];
const encoder = createFlowEncoder(scene.context);
const row = scene.ring.cursor();
for (let round = 0; round < rounds + 3; round++) {
  const started = process.cpuUsage();
  const from = scene.ring.oldest;
  for (let seq = from; seq < from + 20_000; seq++) {
    encoder.response(row.moveTo(seq));
  }
  const used = process.cpuUsage(started);
  if (round >= 3) build.push((20_000 / (used.user + used.system)) * 1e6);
}

/** The whole way: out of the kernel's ring, named, kept, and handed to a subscriber with three filters, to whom a third goes. */
const filters = [
  { sourcePod: ['shop/cart'], protocol: ['tcp'] },
  { destinationLabel: ['app=nobody'] },
  { verdict: [Verdict.ERROR] },
].map((each) => create(FlowFilterSchema, each));
const whole: number[] = [];
const fills = 10;
{
  // One scene and one subscriber for all rounds, as an agent has them for months: what compiling its code costs at the
  // beginning is not what goes on.
  const { ring: flows, recorder, losses, context } = createScene(65_536);
  let [looked, got, piece] = [0, 0, 0];
  const counting: FlowSink<number> = {
    flow: () => got++,
    lost(loss) {
      throw new Error(`${loss.count} flows were lost`);
    },
    isFull: false,
    take: () => ++piece,
  };
  const wanted = compileFilters(filters, [], context);
  const match = (row: FlowRow) => {
    looked++;
    return wanted(row);
  };
  const query = { number: 0, first: false, follow: true, match };
  const stop = new AbortController();
  const subscriber = readFlows(flows, losses, query, counting, stop.signal);
  let next = subscriber.next();
  /** Gives a whole ring to the subscriber. */
  async function fill(): Promise<void> {
    readRing(
      ringOver(new ArrayBuffer(page), data, page, () => {}),
      recorder.record,
    );
    flows.announce();
    for (; looked < flows.next; next = subscriber.next()) await next;
  }
  for (let round = 0; round < rounds + 3; round++) {
    const from = flows.next;
    const started = process.cpuUsage();
    for (let each = 0; each < fills; each++) await fill();
    const used = process.cpuUsage(started);
    if (round >= 3) whole.push(((flows.next - from) / (used.user + used.system)) * 1e6);
  }
  stop.abort();
  await next;
  if (got === 0 || got >= flows.next) throw new Error(`the filters let ${got} of ${flows.next} flows through`);
}

/** The same messages by the usual library. */
const usual: number[] = [];
const parts = Array.from({ length: 5 }, (_, i) =>
  fromBinary(FlowSchema, encoder.flow(scene.ring.get(scene.ring.oldest + i))),
);
for (let round = 0; round < rounds; round++) {
  const started = process.cpuUsage();
  for (let i = 0; i < 10_000; i++) {
    const { $typeName: _, ...fields } = parts[i % parts.length]!;
    toBinary(FlowSchema, create(FlowSchema, fields));
  }
  const used = process.cpuUsage(started);
  usual.push((10_000 / (used.user + used.system)) * 1e6);
}

const spread = (list: number[]) => {
  const sorted = [...list].sort((a, b) => a - b);
  return `${Math.round(quantile(sorted, 0.1))}..${Math.round(quantile(sorted, 0.9))}`;
};
printReport(
  'flow-pipeline',
  [
    {
      measure: 'events into flows, per second of one core',
      unit: '/s',
      median: median(rates),
      spread: spread(rates),
      goal: 300_000,
    },
    {
      measure: 'from the ring to a subscriber with three filters, flows per core',
      unit: '/s',
      median: median(whole),
      spread: spread(whole),
      goal: 1_000_000,
      met: median(whole) >= 1_000_000 ? 'yes' : 'no',
    },
    {
      measure: 'flows built and encoded for a reader, per core',
      unit: '/s',
      median: median(build),
      spread: spread(build),
      reference: median(usual),
      goal: 300_000,
      met: median(build) >= 300_000 ? 'yes' : 'no',
    },
    {
      measure: 'memory of the run, with 65 536 flows kept',
      unit: 'MiB',
      median: (process.memoryUsage().rss - rss) / 2 ** 20,
    },
  ],
  values.json,
);
