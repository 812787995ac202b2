import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { LossSource } from '../flows/loss-log.ts';
import { addresses, createScene, makeEvent } from '../flows/testdata/scene.ts';
import type { ProcessNews } from '../processes/process-events.ts';
import { createSink } from './create-sink.ts';
import { startExporters } from './exporters.ts';
import type { JsonObject } from './flow-json.ts';
import { until } from './testdata/receivers.ts';

interface Line {
  readonly flow?: JsonObject & { source: { pod_name: string } };
  readonly flow_aggregate?: { count: number; verdict: string };
  readonly lost_events?: { source: string; num_events_lost: string };
  readonly process_exec?: { process: { binary: string; pod_name: string } };
}

async function start(t: TestContext, yaml: string, capacity = 64, beforeSink = async () => {}) {
  const folder = mkdtempSync(join(tmpdir(), 'weir-exporters-'));
  const file = join(folder, 'export.yaml');
  const configure = (text: string) => writeFileSync(file, text.replaceAll('DIR', folder));
  configure(yaml);
  const scene = createScene(capacity);
  const logged: string[] = [];
  const log = (message: string, fields?: object) => void logged.push(`${message} ${JSON.stringify(fields)}`);
  const listeners = new Set<(event: ProcessNews) => void>();
  const options = {
    file,
    context: scene.context,
    ring: scene.ring,
    losses: scene.losses,
    processes: {
      subscribe(listener: (event: ProcessNews) => void) {
        listeners.add(listener);
        return () => listeners.delete(listener);
      },
    },
    folder: join(folder, 'queues'),
    async createSink(config: Parameters<typeof createSink>[0], onError: (message: string) => void) {
      await beforeSink();
      return await createSink(config, scene.context, undefined, onError);
    },
    log: { info: log, warn: log, error: log },
    reloadMs: 20,
  };
  const exporters = await startExporters(options);
  let ended = false;
  const close = async () => {
    if (ended) return;
    ended = true;
    await exporters.close();
  };
  t.after(async () => {
    await close();
    rmSync(folder, { recursive: true, force: true });
  });
  const lines = (name: string): Line[] => {
    try {
      return readFileSync(join(folder, name), 'utf8')
        .split('\n')
        .slice(0, -1)
        .map((line) => JSON.parse(line) as Line);
    } catch {
      return [];
    }
  };
  const flow = (from: string = addresses.web) => scene.record(makeEvent({ from, to: addresses.far }));
  const tellProcess = (event: ProcessNews) => {
    for (const each of listeners) each(event);
  };
  return { scene, exporters, close, configure, lines, flow, logged, tellProcess, options };
}

const fileExporter = (name: string, more = '') =>
  `{name: ${name}, type: file, path: DIR/${name}, batch: {seconds: 0}${more}}`;

test('each exporter gets what it is configured for', async (t) => {
  const all = fileExporter('all', ', processes: true');
  const some = fileExporter('some', ', include: [{source_pod: ["shop/web"]}], fields: [source.pod_name, verdict]');
  const { flow, lines, tellProcess } = await start(t, `exporters: [${all}, ${some}]`);
  flow();
  flow(addresses.db);
  const process = {
    ...{ execId: 'x', pid: 1, uid: 0, binary: '/bin/sh', arguments: '', cwd: '/', startMs: 0, execMs: 0 },
    ...{ exit: undefined, parent: undefined },
    container: { id: 'c', name: 'web', image: 'i', podUid: 'u', namespace: 'shop', pod: 'web-1' },
  };
  tellProcess({ kind: 'exec', timeMs: 5, process });
  tellProcess({ kind: 'lost', timeMs: 5, count: 4 });
  await until('all are there', () => lines('all').length === 4 && lines('some').length === 1);
  assert.deepEqual(lines('some')[0]!.flow, { source: { pod_name: 'web-1' }, verdict: 'FORWARDED' });
  const exec = lines('all').find((each) => each.process_exec !== undefined)!.process_exec!.process;
  assert.deepEqual([exec.binary, exec.pod_name], ['/bin/sh', 'web-1']);
  const lost = lines('all').find((each) => each.lost_events !== undefined)!.lost_events!;
  assert.deepEqual(
    [lost.source, lost.num_events_lost],
    ['PROCESS_RING_BUFFER', '4'],
    'for who wants events of processes',
  );
});

test('a flow that cannot be read costs none of those that come after it', async (t) => {
  const { scene, flow, lines } = await start(t, `exporters: [${fileExporter('all')}]`);
  const get = scene.ring.get;
  scene.ring.get = () => {
    throw new Error('not to be read');
  };
  assert.throws(() => flow(), /not to be read/);
  scene.ring.get = get;
  flow();
  flow();
  await until('the others are there', () => lines('all').length === 2);
});

test('flows that are alike are counted', async (t) => {
  const { flow, lines, close } = await start(
    t,
    `exporters: [${fileExporter('sums', ', aggregate: {seconds: 1, by: [verdict, source.pod_name]}')}]`,
  );
  for (let i = 0; i < 20; i++) flow(i % 4 === 0 ? addresses.db : addresses.web);
  await until('the time is over', () => lines('sums').length === 2);
  assert.deepEqual(
    lines('sums').map((each) => each.flow_aggregate!.count),
    [5, 15],
  );
  assert.equal(lines('sums')[0]!.flow_aggregate!.verdict, 'FORWARDED');
  await close();
});

test('what was offered is what was left out, counted, sent, given up, or waits', async (t) => {
  const some = fileExporter('some', ', include: [{source_pod: ["shop/web"]}]');
  const sums = fileExporter('sums', ', aggregate: {seconds: 1, by: [verdict]}');
  const { scene, exporters, flow, lines, tellProcess } = await start(t, `exporters: [${some}, ${sums}]`, 8);
  scene.losses.add(LossSource.kernelRing, 17, 0, Date.now());
  scene.record(...Array.from({ length: 20 }, () => makeEvent({ from: addresses.db, to: addresses.far })));
  for (let i = 0; i < 5; i++) flow();
  tellProcess({ kind: 'exec', timeMs: 5, process: {} as never });
  await until('all are there', () => lines('some').length === 5 + 2 && lines('sums').length === 2 + 1);
  const of = (name: string) => {
    const { offered, filtered, aggregated, sent, refused, told, lost, queue } = exporters
      .status()
      .find((each) => each.name === name)!;
    return { offered, filtered, aggregated, sent, refused, told, lost, waiting: queue.events };
  };
  await until('all are counted', () => of('some').waiting + of('sums').waiting === 0);
  // 17 that the kernel lost and 12 that were overwritten, of which two events tell; of processes none is wanted.
  const both = { refused: 0, told: 17 + 12, lost: 0, waiting: 0 };
  assert.deepEqual(of('some'), { ...both, offered: 16 + 29, filtered: 9, aggregated: 0, sent: 7 });
  assert.deepEqual(of('sums'), { ...both, offered: 17 + 29, filtered: 1, aggregated: 13, sent: 3 });
});

test('an event of loss that cannot be written is lost with what it tells of', async (t) => {
  const { exporters, tellProcess } = await start(t, `exporters: [${fileExporter('f', ', processes: true')}]`);
  tellProcess({ kind: 'lost', timeMs: Number.NaN, count: 17 });
  const { offered, lost, sent, told } = exporters.status()[0]!;
  assert.deepEqual([offered, lost, sent, told], [18, 18, 0, 0]);
});

test('losses of the kernel, and of this agent, are events', async (t) => {
  const { scene, flow, lines } = await start(t, `exporters: [${fileExporter('f')}]`, 8);
  scene.losses.add(LossSource.kernelRing, 17, 0, Date.now());
  scene.record(...Array.from({ length: 20 }, () => makeEvent({ from: addresses.web, to: addresses.far })));
  flow();
  await until('all are there', () => lines('f').length === 8 + 1 + 2);
  const lost = lines('f').flatMap((each) =>
    each.lost_events === undefined ? [] : [[each.lost_events.source, each.lost_events.num_events_lost]],
  );
  assert.deepEqual(lost, [
    ['HUBBLE_RING_BUFFER', '12'],
    ['PERF_EVENT_RING_BUFFER', '17'],
  ]);
});

test('a configuration that changes is followed; one with a mistake is said, and what ran goes on', async (t) => {
  const { exporters, configure, flow, lines } = await start(t, `exporters: [${fileExporter('a')}]`);
  configure('exporters: [{name: a, type: nothing}]');
  await until('the mistake is said', () =>
    exporters.problems().some((each) => /is not used: .*exporters\[0\]/.test(each)),
  );
  flow();
  await until('it goes on', () => lines('a').length === 1);
  configure(`exporters: [${fileExporter('a')}, ${fileExporter('b')}]`);
  await until('both run', () => exporters.status().length === 2);
  assert.deepEqual(exporters.problems(), []);
  flow();
  await until('both have it', () => lines('a').length === 2 && lines('b').length === 1);
});

test('without a file nothing is exported, and that is said until there is one', async (t) => {
  const { options } = await start(t, 'exporters: []');
  rmSync(options.file);
  const exporters = await startExporters({ ...options, folder: join(options.folder, 'other') });
  t.after(() => exporters.close());
  assert.match(exporters.problems()[0]!, /ENOENT/);
});

test('a receiver that is not there stalls nobody; what waits is sent by the next run', async (t) => {
  const dead = '{name: dead, type: splunk, url: "http://127.0.0.1:1", batch: {seconds: 0}}';
  const { exporters, configure, flow, lines, close, options } = await start(
    t,
    `exporters: [${dead}, ${fileExporter('f')}]`,
  );
  for (let i = 0; i < 30; i++) flow();
  await until('the other has all', () => lines('f').length === 30);
  const [status] = exporters.status();
  assert.deepEqual([status!.sent, status!.queue.events], [0, 30]);
  await close();
  configure(`exporters: [{name: dead, type: file, path: DIR/late, batch: {seconds: 0}}]`);
  const again = await startExporters({ ...options, ring: createScene(8).ring });
  t.after(() => again.close());
  await until('the next run sends it', () => lines('late').length === 30);
});

test('flows that come while an exporter is exchanged are in the old file or in the new one', async (t) => {
  let between = async () => {};
  const first = `exporters: [${fileExporter('f')}]`;
  const { configure, flow, lines } = await start(t, first, 64, () => between());
  flow();
  await until('the first has one', () => lines('f').length === 1);
  between = async () => {
    flow();
    // Whoever reads the ring had time to.
    for (let i = 0; i < 3; i++) await new Promise(setImmediate);
  };
  configure('exporters: [{name: f, type: file, path: DIR/g, batch: {seconds: 0}}]');
  await until('the second has the other', () => lines('g').length === 1);
  assert.equal(lines('f').length, 1);
});
