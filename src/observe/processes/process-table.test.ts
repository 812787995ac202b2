import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { PROCESS_EVENT_SIZE, ProcessEventType, processEvent } from '../../kernel/datapath.gen.ts';
import type { ProcProcess } from '../../kernel/proc.ts';
import type { ProcessContainer } from './process-row.ts';
import { createProcessTable, type ProcessEvent } from './process-table.ts';

const container: ProcessContainer = { id: 'c1', name: 'web', image: 'i', podUid: 'u', namespace: 'shop', pod: 'web-0' };
const ref = (pid: number, startNs: number, exec = 1, uid = 0) => ({ pid, startNs: BigInt(startNs), exec, uid });

function scene(proc: Record<number, Partial<ProcProcess>> = {}, maxExited?: number) {
  const waiting: Uint8Array[] = [];
  const table = createProcessTable(
    {
      nodeName: 'node1',
      readProcess: (pid, startTicks = 0) =>
        proc[pid] && {
          executable: `/proc-${pid}`,
          arguments: [`p${pid}`],
          cwd: '/',
          uid: 0,
          cgroup: '',
          startTicks,
          ...proc[pid],
        },
      workingDirectory: () => '/work',
      container: (cgroup) => (cgroup === 9 ? container : undefined),
      containerByPath: () => undefined,
      redact: [],
      wallMs: (ns) => 1000 + ns / 1e6,
      maxExited,
    },
    () => {
      for (const bytes of waiting.splice(0)) put(bytes);
    },
  );
  const events: string[] = [];
  table.subscribe((event: ProcessEvent) => events.push(`${event.kind} ${event.process.binary}`));
  const put = (bytes: Uint8Array) => table.record(new DataView(bytes.buffer, bytes.byteOffset), 0, bytes.length);
  const make = (type: number, given: object, path = '', args = ''): Uint8Array => {
    const text = Buffer.from(path === '' ? '' : `${path}\0${args}`);
    const head = processEvent.encode({
      timeNs: 0n,
      who: ref(0, 0),
      parent: ref(0, 0),
      cgroup: 0n,
      exitStatus: 0,
      argsCut: 0,
      type,
      pathLen: path === '' ? 0 : path.length + 1,
      argsLen: args.length,
      ...given,
    });
    return Buffer.concat([head, text]);
  };
  const exec = (who: ReturnType<typeof ref>, path: string, args: string, more: object = {}) =>
    make(ProcessEventType.PROCESS_EXEC, { who, cgroup: 9n, ...more }, path, args);
  return { table, put, make, exec, waiting, events };
}

test('an exec is known by pid, start and count, with its arguments, container and parents', () => {
  const { table, put, exec, events } = scene();
  put(exec(ref(7, 100), '/bin/sh', 'sh\0-c\0a b\0'));
  put(exec(ref(8, 200), 'curl', 'curl\0http://x\0', { parent: ref(7, 100) }));
  const row = table.find(200, 8, 1, 0)!;
  assert.deepEqual(
    [row.binary, row.arguments, row.cwd, row.container?.pod],
    ['/work/curl', 'http://x', '/work', 'web-0'],
  );
  assert.equal(row.parent?.binary, '/bin/sh');
  assert.equal(row.parent?.arguments, "-c 'a b'");
  assert.equal(Buffer.from(row.execId, 'base64url').toString(), 'node1:200:8:1');
  assert.deepEqual(events, ['exec /bin/sh', 'exec /work/curl']);
});

test('the same pid is never taken for who had it before, nor a program for its forebear in the process', () => {
  const { table, put, exec, make } = scene();
  put(exec(ref(7, 100, 1), '/bin/sh', 'sh\0'));
  put(exec(ref(7, 100, 2), '/bin/curl', 'curl\0'));
  put(make(ProcessEventType.PROCESS_EXIT, { who: ref(7, 100, 2), exitStatus: 3 << 8, timeNs: 5_000_000n }));
  put(exec(ref(7, 900, 1), '/bin/other', 'other\0'));
  assert.equal(table.find(100, 7, 1, 0)?.binary, '/bin/sh');
  assert.equal(table.find(100, 7, 2, 0)?.binary, '/bin/curl');
  assert.deepEqual(table.find(100, 7, 2, 0)?.exit, { atMs: 1005, code: 3, signal: 0 });
  assert.equal(table.find(900, 7, 1, 0)?.binary, '/bin/other');
  assert.deepEqual(
    table.running().map((row) => row.binary),
    ['/bin/other'],
  );
});

test('a fork has its parent’s program and is another process', () => {
  const { table, put, exec, make } = scene();
  put(exec(ref(7, 100), '/usr/sbin/nginx', 'nginx\0'));
  put(make(ProcessEventType.PROCESS_FORK, { who: ref(8, 150), parent: ref(7, 100) }));
  const row = table.find(150, 8, 1, 33)!;
  assert.deepEqual([row.binary, row.pid, row.uid, row.parent?.pid], ['/usr/sbin/nginx', 8, 33, 7]);
});

test('what the ring still holds is read before /proc is asked; what nobody knows has its pid at least', () => {
  const { table, exec, waiting } = scene({ 30: { executable: '/usr/bin/old' } });
  waiting.push(exec(ref(20, 100), '/bin/short', 'short\0'));
  assert.equal(table.find(100, 20, 1, 0)?.binary, '/bin/short');
  assert.equal(table.find(1, 30, 4, 0)?.binary, '/usr/bin/old');
  const nobody = table.find(2, 40, 1, 5)!;
  assert.deepEqual([nobody.pid, nobody.uid, nobody.binary], [40, 5, '']);
  assert.equal(table.find(0, 0, 0, 0), undefined);
  assert.equal(table.counts.unknown, 1);
});

test('processes that ended are forgotten, the oldest first', () => {
  const { table, put, exec, make } = scene({}, 2);
  for (const pid of [1, 2, 3]) {
    put(exec(ref(pid, pid), `/bin/p${pid}`, 'p\0'));
    put(make(ProcessEventType.PROCESS_EXIT, { who: ref(pid, pid) }));
  }
  assert.deepEqual(
    [3, 2, 1].map((pid) => table.find(pid, pid, 1, 0)?.binary),
    ['/bin/p3', '/bin/p2', ''],
  );
});

test('after a loss, who is gone is found out', () => {
  const { table, put, exec } = scene({ 5: {} });
  put(exec(ref(5, 10), '/bin/stays', 's\0'));
  put(exec(ref(6, 20), '/bin/went', 'w\0'));
  table.reconcile();
  assert.deepEqual(
    table.running().map((row) => row.binary),
    ['/bin/stays'],
  );
});

test('records that lie about their lengths are counted; bytes that are no text become text', () => {
  const { table, put, exec } = scene();
  put(exec(ref(5, 10), '/bin/x', 'x\0', { argsLen: 4000 }));
  assert.equal(table.counts.malformed, 1);
  put(Buffer.concat([exec(ref(5, 10), '/bin/x', 'x\0\xff\0'.replace('\xff', '?')), Buffer.alloc(0)]));
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 0, maxLength: PROCESS_EVENT_SIZE + 64 }), (bytes) => {
      put(Uint8Array.from(bytes));
    }),
  );
});

test('a chain of forks keeps no more than those that are remembered', () => {
  const { table, put, exec, make } = scene({}, 4);
  put(exec(ref(1, 1), '/bin/chain', 'chain\0'));
  for (let pid = 2; pid < 50; pid++) {
    put(make(ProcessEventType.PROCESS_FORK, { who: ref(pid, pid), parent: ref(pid - 1, pid - 1) }));
    put(make(ProcessEventType.PROCESS_EXIT, { who: ref(pid - 1, pid - 1) }));
  }
  let depth = 0;
  for (let row = table.find(49, 49, 1, 0); row !== undefined; row = row.parent) depth++;
  assert.ok(depth <= 6, `${depth} generations`);
});

test('what is told late of a pid does not take the place of who has it now', () => {
  const { table, put, exec } = scene();
  put(exec(ref(7, 900), '/bin/now', 'now\0'));
  put(exec(ref(7, 100), '/bin/before', 'before\0'));
  assert.deepEqual(
    table.running().map((row) => row.binary),
    ['/bin/now'],
  );
  assert.equal(table.find(100, 7, 1, 0)?.binary, '/bin/before');
});
