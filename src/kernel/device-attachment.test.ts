import assert from 'node:assert/strict';
import { mkdirSync, rmSync } from 'node:fs';
import { test } from 'node:test';
import {
  attachTcx,
  detachLink,
  linkInfo,
  listPinnedLinks,
  openPinnedLink,
  pinLink,
  replaceProgram,
} from './bpf-link.ts';
import { createMap } from './bpf-map.ts';
import { programInfo } from './bpf-program.ts';
import { enableRunStats } from './bpf-stats.ts';
import { MapType, ProgType } from './bpf-syscall.ts';
import {
  attachAtOnce,
  attachToDevice,
  detachFromDevice,
  probeAttachMethod,
  upgradeToTcx,
} from './device-attachment.ts';
import { isErrno } from './kernel-error.ts';
import { bind, closeFd, send, socket } from './libc.ts';
import { createVeth, deleteLink, getLink, setLink } from './links.ts';
import { withNetns } from './netns.ts';
import { loadInstructions, returnProgram } from './raw-program.ts';
import { listFilters } from './tc-filter.ts';
import { netnsSkip, scratchNetns } from './testdata/scratch-netns.ts';

function fixture(name: string) {
  const netns = scratchNetns();
  createVeth(netns.netlink, { name: 'a0', ifindex: 50, peer: { name: 'b0' } });
  const pins = `/sys/fs/bpf/weir-test-${name}`;
  mkdirSync(pins, { recursive: true });
  const programs = [0, 1].map((value) =>
    loadInstructions({ type: ProgType.schedCls, instructions: returnProgram(value), name: `p${value}` }),
  );
  return {
    netlink: netns.netlink,
    inside: <T>(fn: () => T) => withNetns(netns.fd, fn),
    pins,
    programs: programs as [number, number],
    [Symbol.dispose]() {
      rmSync(pins, { recursive: true, force: true });
      for (const fd of programs) closeFd(fd);
      netns[Symbol.dispose]();
    },
  };
}

const needsTcx = netnsSkip.skip
  ? netnsSkip
  : probeAttachMethod() === 'tcx'
    ? {}
    : { skip: 'this kernel has no tcx (before 6.6)' };

test('a pinned tcx link survives its descriptor, and dies with its device', needsTcx, () => {
  using t = fixture('link');
  const [first, second] = t.programs;
  const link = t.inside(() => attachTcx({ ifindex: 50, direction: 'ingress', programFd: first }));
  pinLink(link, `${t.pins}/a0`);
  closeFd(link);
  createMapPin(t.pins);
  const again = openPinnedLink(`${t.pins}/a0`);
  const info = linkInfo(again);
  assert.deepEqual([info.type, info.ifindex, info.direction], ['tcx', 50, 'ingress']);
  assert.equal(info.programId, programInfo(first).id);
  replaceProgram(again, second);
  assert.equal(linkInfo(again).programId, programInfo(second).id);
  assert.deepEqual(
    listPinnedLinks(t.pins).map(({ name, ifindex }) => [name, ifindex]),
    [['a0', 50]],
  );
  deleteLink(t.netlink, 50);
  assert.equal(linkInfo(again).ifindex, 0);
  assert.throws(
    () => replaceProgram(again, first),
    (error) => isErrno(error, 'ENOLINK'),
  );
  closeFd(again);
  assert.throws(
    () => openPinnedLink(`${t.pins}/none`),
    (error) => isErrno(error, 'ENOENT'),
  );
});

function createMapPin(directory: string): void {
  using map = createMap({ name: 'm', type: MapType.array, keySize: 4, valueSize: 4, maxEntries: 1 });
  map.pin(`${directory}/some_map`);
}

test('attachToDevice attaches once, replaces in place, and heals a dead pin', needsTcx, () => {
  using t = fixture('attach');
  const [first, second] = t.programs;
  const at = { ifindex: 50, direction: 'ingress', pinPath: `${t.pins}/a0`, name: 'pod', method: 'tcx' } as const;
  const attach = (programFd: number) => t.inside(() => attachToDevice(t.netlink, { ...at, programFd })).outcome;
  assert.equal(attach(first), 'attached');
  assert.equal(attach(first), 'unchanged');
  assert.equal(attach(second), 'replaced');
  deleteLink(t.netlink, 50);
  createVeth(t.netlink, { name: 'a0', ifindex: 50, peer: { name: 'b0' } });
  assert.equal(attach(second), 'attached');
  detachFromDevice(t.netlink, at);
  detachFromDevice(t.netlink, at);
  assert.equal(listPinnedLinks(t.pins).length, 0);
});

test('attachToDevice works with clsact too', netnsSkip, () => {
  using t = fixture('clsact');
  const [first, second] = t.programs;
  const at = { ifindex: 50, direction: 'ingress', pinPath: `${t.pins}/a0`, name: 'pod', method: 'clsact' } as const;
  attachToDevice(t.netlink, { ...at, programFd: first });
  attachToDevice(t.netlink, { ...at, programFd: second });
  const filters = listFilters(t.netlink, 50, 'ingress');
  assert.deepEqual(filters, [{ priority: 1, handle: 1, name: 'pod', programId: programInfo(second).id }]);
  assert.deepEqual(listFilters(t.netlink, 50, 'egress'), []);
  detachFromDevice(t.netlink, at);
  detachFromDevice(t.netlink, at);
  assert.deepEqual(listFilters(t.netlink, 50, 'ingress'), []);
});

test('attachTcx refuses a device that is not there; detachLink ends an attachment at once', needsTcx, () => {
  using t = fixture('none');
  const attach = (ifindex: number) =>
    t.inside(() => attachTcx({ ifindex, direction: 'egress', programFd: t.programs[0] }));
  assert.throws(
    () => attach(4711),
    (error) => isErrno(error, 'ENODEV'),
  );
  const link = attach(50);
  detachLink(link);
  assert.equal(linkInfo(link).ifindex, 0);
  closeFd(link);
});

test('upgradeToTcx leaves one hook, and until then the filter decides', needsTcx, async () => {
  using t = fixture('upgrade');
  const [pass] = t.programs;
  const drop = loadInstructions({ type: ProgType.schedCls, instructions: returnProgram(2), name: 'drop' });
  const at = { ifindex: 50, direction: 'ingress', pinPath: `${t.pins}/a0`, name: 'weir', programFd: drop } as const;
  const attach = async (options: Parameters<typeof attachTcx>[0]) => t.inside(() => attachTcx(options));
  attachAtOnce(t.netlink, at);
  assert.equal(await upgradeToTcx(t.netlink, at, () => false, attach), false);
  assert.equal(listFilters(t.netlink, 50, 'ingress').length, 1);
  assert.equal(listPinnedLinks(t.pins).length, 0);
  assert.equal(await upgradeToTcx(t.netlink, at, () => true, attach), true);
  assert.deepEqual(listFilters(t.netlink, 50, 'ingress'), []);
  assert.deepEqual(
    listPinnedLinks(t.pins).map(({ ifindex, programId }) => [ifindex, programId]),
    [[50, programInfo(drop).id]],
  );
  // An agent that ended half-way left both; the next one finishes.
  attachAtOnce(t.netlink, at);
  t.inside(() => attachToDevice(t.netlink, { ...at, programFd: pass, method: 'tcx' }));
  assert.deepEqual(listFilters(t.netlink, 50, 'ingress'), []);
  closeFd(drop);
});

/** Sends a frame out of a device of the calling thread's namespace; what it meets is over when this returns. */
function sendFrame(ifindex: number): void {
  const AF_PACKET = 17;
  const SOCK_RAW = 3;
  const fd = socket(AF_PACKET, SOCK_RAW, 0);
  const address = new DataView(new ArrayBuffer(20));
  address.setUint16(0, AF_PACKET, true);
  address.setUint32(4, ifindex, true);
  bind(fd, new Uint8Array(address.buffer));
  send(fd, new Uint8Array(60).fill(0xff));
  closeFd(fd);
}

test('of a tcx link and a filter on one device, the link alone decides', needsTcx, async () => {
  using t = fixture('both');
  const far = getLink(t.netlink, 'b0')!.ifindex;
  for (const ifindex of [50, far]) setLink(t.netlink, ifindex, { up: true });
  const [pass, last] = t.programs;
  using stats = enableRunStats();
  assert.ok(stats);
  const runs = () => t.programs.map((fd) => programInfo(fd).runCount);
  /** Sends until somebody has seen a frame. */
  const whoSees = async () => {
    const before = runs();
    for (let tries = 0; tries < 1_000; tries++) {
      t.inside(() => sendFrame(far));
      await new Promise((resolve) => setImmediate(resolve));
      const now = runs();
      if (now.some((each, i) => each !== before[i])) return now.map((each, i) => each !== before[i]);
    }
    throw new Error('no frame arrived');
  };
  attachAtOnce(t.netlink, { ifindex: 50, direction: 'ingress', pinPath: '', name: 'weir', programFd: last });
  assert.deepEqual(await whoSees(), [false, true]);
  const link = t.inside(() => attachTcx({ ifindex: 50, direction: 'ingress', programFd: pass }));
  assert.deepEqual(await whoSees(), [true, false]);
  closeFd(link);
  assert.deepEqual(await whoSees(), [false, true]);
});
