import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { create } from '@bufbuild/protobuf';
import { GetFlowsRequestSchema, type GetFlowsResponse, Observer } from '../../../proto/gen/observer/observer_pb.js';
import { Counter, event } from '../../kernel/datapath.gen.ts';
import { ringOver } from '../../kernel/ring-buffer.ts';
import { serviceClient } from '../rpc/testdata/grpc-client.ts';
import { createFlowObserver, type FlowCounters } from './flow-observer.ts';
import { addresses, createScene, makeEvent } from './testdata/scene.ts';

const page = 4096;
const ringBytes = 64 * 1024;

/** A ring as the kernel would write it, and counters that the test moves. */
async function observed(t: TestContext, countersBefore?: FlowCounters, counters: Record<number, number> = {}) {
  const scene = createScene();
  const data = new ArrayBuffer(page + 2 * ringBytes);
  const producer = new BigUint64Array(data, 0, 1);
  const view = new DataView(data, page);
  let at = 0;
  const told: FlowCounters[] = [];
  const observer = createFlowObserver({
    ...scene.tables,
    nodeName: 'node1',
    run: '0123456789abcdef',
    version: 'v',
    startedAtMs: Date.now(),
    capacity: 64,
    events: ringOver(new ArrayBuffer(page), data, page, () => {}),
    counter: (index) => counters[index] ?? 0,
    cookie: () => undefined,
    countersBefore,
    onCounters: (each) => told.push(each),
    onError: (error) => assert.fail(String(error)),
    ready: Promise.resolve(),
  });
  const folder = mkdtempSync(join(tmpdir(), 'weir-flows-'));
  const address = `unix:${join(folder, 'hubble.sock')}`;
  const server = await observer.serve(address);
  const client = serviceClient(Observer, address);
  t.after(async () => {
    client.close();
    await server.close();
    observer.close();
    rmSync(folder, { recursive: true });
  });
  return {
    observer,
    counters,
    told,
    write(sport: number) {
      const bytes = event.encode(makeEvent({ from: addresses.far, to: addresses.db, sport }));
      view.setUint32(at, bytes.length, true);
      new Uint8Array(data, page).set(bytes, at + 8);
      at += 8 + bytes.length;
      producer[0] = BigInt(at);
    },
    /** What a follower is told, from the oldest flow on, until `count` things were. */
    async read(count: number): Promise<string[]> {
      const got: string[] = [];
      for await (const { responseTypes } of client.getFlows!(
        create(GetFlowsRequestSchema, { follow: true, first: true }),
      ) as AsyncIterable<GetFlowsResponse>) {
        if (responseTypes.case === 'lostEvents')
          got.push(`lost ${responseTypes.value.numEventsLost} at ${responseTypes.value.source}`);
        else if (responseTypes.case === 'flow') got.push('flow');
        if (got.length === count) break;
      }
      return got;
    },
  };
}

test('what the kernel could not report is told in the stream with exact counts', async (t) => {
  const { write, read, counters, told, observer } = await observed(t);
  write(1);
  const reading = read(3);
  while (observer.status().seenFlows < 1) await new Promise((resolve) => setTimeout(resolve, 5));
  counters[Counter.COUNTER_EVENTS_LOST] = 17;
  write(2);
  assert.deepEqual(await reading, ['flow', 'flow', 'lost 17 at 1']);
  assert.equal(observer.status().lostInKernel, 17);
  assert.deepEqual(told, [{ lost: 17, heldBack: 0 }]);
});

test('what was lost while the agent was away is told too', async (t) => {
  const { write, read } = await observed(
    t,
    { lost: 5, heldBack: 3 },
    { [Counter.COUNTER_EVENTS_LOST]: 9, [Counter.COUNTER_DROPS_UNREPORTED]: 3 },
  );
  write(1);
  // Whether the loss or the flow is seen first is a matter of who was quicker.
  assert.deepEqual((await read(2)).sort(), ['flow', 'lost 4 at 1']);
});

test('counters that went back are of new maps: all in them is told', async (t) => {
  const { write, read } = await observed(t, { lost: 50, heldBack: 0 }, { [Counter.COUNTER_EVENTS_LOST]: 2 });
  write(1);
  // Whether the loss or the flow is seen first is a matter of who was quicker.
  assert.deepEqual((await read(2)).sort(), ['flow', 'lost 2 at 1']);
});

test('what was lost is told when nobody knows what had been told before', async (t) => {
  const { write, read } = await observed(t, undefined, { [Counter.COUNTER_EVENTS_LOST]: 6 });
  write(1);
  // Whether the loss or the flow is seen first is a matter of who was quicker.
  assert.deepEqual((await read(2)).sort(), ['flow', 'lost 6 at 1']);
});
