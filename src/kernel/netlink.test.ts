import assert from 'node:assert/strict';
import { readdirSync, readlinkSync } from 'node:fs';
import { test } from 'node:test';
import { addAddress, deleteAddress, listAddresses } from './addresses.ts';
import { isErrno, KernelError } from './kernel-error.ts';
import { closeFd } from './libc.ts';
import { createBridge, createVeth, createVxlan, deleteLink, getLink, listLinks, setLink } from './links.ts';
import { deleteNeighbour, listNeighbours, setNeighbour } from './neighbours.ts';
import { parseAttributes, parseMessages } from './netlink.ts';
import { createNamedNetns, deleteNamedNetns, openNetns, withNetns } from './netns.ts';
import { type NetworkChange, watchNetwork } from './network-changes.ts';
import { addRoute, deleteRoute, listRoutes, lookupRoute, RouteProtocol, replaceRoute } from './routes.ts';
import { addRule, deleteRule, listRules } from './rules.ts';
import { readSysctl, writeSysctl } from './sysctl.ts';
import { netnsSkip, scratchNetns } from './testdata/scratch-netns.ts';

function pair(a: ReturnType<typeof scratchNetns>, b: ReturnType<typeof scratchNetns>) {
  createVeth(a.netlink, {
    name: 'lxc1',
    mac: '0e:57:00:00:00:64',
    mtu: 1400,
    ifindex: 100,
    up: true,
    txQueues: 1,
    rxQueues: 1,
    peer: { name: 'eth0', mac: '0a:57:00:00:00:64', mtu: 1400, netnsFd: b.fd, up: true, ifindex: 7 },
  });
}

test('createVeth makes both ends as asked, the peer directly in the other namespace', netnsSkip, () => {
  using a = scratchNetns();
  using b = scratchNetns();
  pair(a, b);
  const host = getLink(a.netlink, 'lxc1')!;
  const peer = getLink(b.netlink, 'eth0')!;
  assert.deepEqual(
    [host.ifindex, host.mac, host.mtu, host.up, host.kind, host.peerIfindex],
    [100, '0e:57:00:00:00:64', 1400, true, 'veth', 7],
  );
  assert.deepEqual(
    [peer.ifindex, peer.mac, peer.mtu, peer.up, peer.peerIfindex],
    [7, '0a:57:00:00:00:64', 1400, true, 100],
  );
  assert.equal(getLink(a.netlink, 'eth0'), undefined);
  assert.equal(getLink(a.netlink, 4242), undefined);
  assert.deepEqual(
    listLinks(a.netlink).map((link) => link.name),
    ['lo', 'lxc1'],
  );
  assert.equal(deleteLink(a.netlink, 100), true);
  assert.equal(deleteLink(a.netlink, 100), false);
});

test('setLink renames, moves and enslaves', netnsSkip, () => {
  using a = scratchNetns();
  using b = scratchNetns();
  pair(a, b);
  createBridge(a.netlink, { name: 'br0', up: true });
  createVxlan(a.netlink, { name: 'vx0', port: 8472, external: true });
  assert.equal(getLink(a.netlink, 'vx0')!.kind, 'vxlan');
  const bridge = getLink(a.netlink, 'br0')!;
  setLink(a.netlink, 100, { masterIfindex: bridge.ifindex });
  assert.equal(getLink(a.netlink, 100)!.masterIfindex, bridge.ifindex);
  setLink(a.netlink, 100, { masterIfindex: 0, up: false, name: 'other', mac: '02:00:00:00:00:01', mtu: 1300 });
  const changed = getLink(a.netlink, 'other')!;
  assert.deepEqual(
    [changed.up, changed.mac, changed.mtu, changed.masterIfindex],
    [false, '02:00:00:00:00:01', 1300, 0],
  );
  setLink(a.netlink, 100, { netnsFd: b.fd });
  assert.equal(getLink(a.netlink, 'other'), undefined);
  assert.equal(getLink(b.netlink, 'other')!.ifindex, 100);
});

test('netlink errors carry the kernel’s own explanation', netnsSkip, () => {
  using a = scratchNetns();
  using b = scratchNetns();
  pair(a, b);
  assert.throws(
    () => addRoute(a.netlink, { dst: '10.9.0.0/16', via: '10.8.0.1' }),
    (error) =>
      error instanceof KernelError && error.code === 'ENETUNREACH' && /Nexthop has invalid gateway/.test(error.message),
  );
  assert.throws(
    () => pair(a, b),
    (error) => isErrno(error, 'EEXIST') && /create veth device lxc1/.test(error.message),
  );
  a.netlink.close();
  assert.throws(() => listLinks(a.netlink), /the socket was closed/);
});

test('addresses of both families can be used at once, and deleted once', netnsSkip, () => {
  using a = scratchNetns();
  using b = scratchNetns();
  pair(a, b);
  addAddress(a.netlink, { ifindex: 100, address: '10.1.2.3/24' });
  addAddress(a.netlink, { ifindex: 100, address: 'fd00::1/64' });
  addAddress(a.netlink, { ifindex: 100, address: 'fd00::1/64', replace: true });
  assert.throws(
    () => addAddress(a.netlink, { ifindex: 100, address: '10.1.2.3/24' }),
    (e) => isErrno(e, 'EEXIST'),
  );
  const found = listAddresses(a.netlink, 100).filter((address) => address.scope === 'global');
  assert.deepEqual(
    found.map((x) => `${x.address}/${x.prefixBits} ${x.tentative}`),
    ['10.1.2.3/24 false', 'fd00::1/64 false'],
  );
  assert.equal(deleteAddress(a.netlink, 100, '10.1.2.3/24'), true);
  assert.equal(deleteAddress(a.netlink, 100, '10.1.2.3/24'), false);
  assert.throws(() => addAddress(a.netlink, { ifindex: 100, address: '10.1.2.300/24' }), RangeError);
});

test('routes of a pod: onlink default, both families, found and deleted', netnsSkip, () => {
  using a = scratchNetns();
  using b = scratchNetns();
  pair(a, b);
  const pod = b.netlink;
  addAddress(pod, { ifindex: 7, address: '10.244.1.5/32' });
  addAddress(pod, { ifindex: 7, address: 'fd00:10:244:1::5/128' });
  addRoute(pod, { dst: '169.254.1.1/32', ifindex: 7, scope: 'link' });
  addRoute(pod, { dst: '0.0.0.0/0', via: '169.254.1.1', ifindex: 7, onlink: true, src: '10.244.1.5', mtu: 1400 });
  addRoute(pod, { dst: '::/0', via: 'fe80::1', ifindex: 7 });
  replaceRoute(pod, { dst: '::/0', via: 'fe80::2', ifindex: 7 });
  assert.throws(
    () => addRoute(pod, { dst: '169.254.1.1/32', ifindex: 7 }),
    (e) => isErrno(e, 'EEXIST'),
  );
  const own = listRoutes(pod, { protocol: RouteProtocol.weir, table: 254 });
  assert.deepEqual(
    own.map((r) => `${r.dst} ${r.via ?? 'direct'} ${r.ifindex} ${r.src ?? '-'} ${r.scope}`),
    ['0.0.0.0/0 169.254.1.1 7 10.244.1.5 global', '169.254.1.1/32 direct 7 - link', '::/0 fe80::2 7 - global'],
  );
  assert.equal(lookupRoute(pod, '8.8.8.8')!.via, '169.254.1.1');
  assert.equal(lookupRoute(pod, '2001:db8::1')!.via, 'fe80::2');
  assert.equal(lookupRoute(a.netlink, '8.8.8.8'), undefined);
  assert.equal(deleteRoute(pod, { dst: '0.0.0.0/0' }), true);
  assert.equal(deleteRoute(pod, { dst: '0.0.0.0/0' }), false);
  addRoute(pod, { dst: '10.99.0.0/16', kind: 'blackhole', table: 1000, metric: 5 });
  const [hole] = listRoutes(pod, { table: 1000 });
  assert.deepEqual([hole!.kind, hole!.metric, hole!.dst], ['blackhole', 5, '10.99.0.0/16']);
  addRoute(pod, { dst: '10.98.0.0/16', via: 'fe80::1', ifindex: 7 });
  assert.equal(listRoutes(pod).find((route) => route.dst === '10.98.0.0/16')!.via, 'fe80::1');
});

test('neighbours and rules are written, listed and deleted', netnsSkip, () => {
  using a = scratchNetns();
  using b = scratchNetns();
  pair(a, b);
  setNeighbour(a.netlink, { ifindex: 100, address: '10.1.2.9', mac: '02:00:00:00:00:09' });
  setNeighbour(a.netlink, { ifindex: 100, address: 'fd00::9', mac: '02:00:00:00:00:09' });
  setNeighbour(a.netlink, { ifindex: 100, address: 'fd00::9', mac: '02:00:00:00:00:10' });
  const found = listNeighbours(a.netlink, 100).filter((entry) => entry.permanent);
  assert.deepEqual(found.map((entry) => `${entry.address} ${entry.mac}`).sort(), [
    '10.1.2.9 02:00:00:00:00:09',
    'fd00::9 02:00:00:00:00:10',
  ]);
  assert.equal(deleteNeighbour(a.netlink, 100, 'fd00::9'), true);
  assert.equal(deleteNeighbour(a.netlink, 100, 'fd00::9'), false);

  const rule = { family: 4, priority: 20, table: 2004, mark: 0x200, markMask: 0xf00, dst: '10.0.0.0/8' } as const;
  addRule(a.netlink, rule);
  assert.throws(
    () => addRule(a.netlink, rule),
    (e) => isErrno(e, 'EEXIST'),
  );
  assert.deepEqual(
    listRules(a.netlink).find((x) => x.priority === 20),
    { ...rule, protocol: RouteProtocol.weir },
  );
  assert.equal(deleteRule(a.netlink, rule), true);
  assert.equal(deleteRule(a.netlink, rule), false);
});

test('watchNetwork reports devices, addresses and routes of another namespace', netnsSkip, async () => {
  using a = scratchNetns();
  using b = scratchNetns();
  const seen: NetworkChange[] = [];
  using _watch = watchNetwork({ kinds: ['link', 'address', 'route'], netnsFd: a.fd }, (changes) =>
    seen.push(...changes),
  );
  pair(a, b);
  addAddress(a.netlink, { ifindex: 100, address: '10.1.2.3/24' });
  deleteLink(a.netlink, 100);
  const deadlineMs = Date.now() + 5000;
  const done = () => seen.some((change) => change.kind === 'link' && change.deleted);
  while (!done() && Date.now() < deadlineMs) await new Promise((resolve) => setImmediate(resolve));
  assert.ok(done());
  assert.ok(seen.some((c) => c.kind === 'address' && !c.deleted && c.address.address === '10.1.2.3'));
  assert.ok(seen.some((c) => c.kind === 'route' && !c.deleted && c.route.dst === '10.1.2.0/24'));
});

test('withNetns comes back, also when its function throws, and refuses promises', netnsSkip, () => {
  using a = scratchNetns();
  const here = readlinkSync('/proc/thread-self/ns/net');
  const there = withNetns(a.fd, () => readlinkSync('/proc/thread-self/ns/net'));
  assert.notEqual(here, there);
  assert.throws(
    () =>
      withNetns(a.fd, () => {
        throw new Error('inside');
      }),
    /inside/,
  );
  assert.throws(() => withNetns(a.fd, async () => {}), /synchronous/);
  assert.equal(readlinkSync('/proc/thread-self/ns/net'), here);
  assert.throws(
    () => withNetns(0, () => {}),
    (e) => isErrno(e, 'EINVAL'),
  );
});

test('createNamedNetns keeps a namespace under its name until it is deleted', netnsSkip, () => {
  const name = `weir-test-${process.pid}`;
  const path = createNamedNetns(name);
  try {
    assert.throws(() => createNamedNetns(name), /EEXIST/);
    const fd = openNetns(path);
    closeFd(fd);
    assert.deepEqual(
      withNetns(path, () => readdirSync('/sys/class/net').includes('lo')),
      true,
    );
  } finally {
    deleteNamedNetns(name);
  }
  assert.throws(() => openNetns(path), /ENOENT/);
});

test('sysctls are those of the namespace asked for', netnsSkip, () => {
  using a = scratchNetns();
  using b = scratchNetns();
  writeSysctl('net.ipv4.ip_forward', '1', a.fd);
  writeSysctl('net.ipv4.ip_forward', '0', b.fd);
  assert.equal(readSysctl('net.ipv4.ip_forward', a.fd), '1');
  assert.equal(readSysctl('net/ipv4/ip_forward', b.fd), '0');
  assert.equal(readSysctl('net.ipv4.none', a.fd), undefined);
});

test('parseMessages and parseAttributes stop at truncated bytes', () => {
  const bytes = new Uint8Array([40, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
  assert.deepEqual([...parseMessages(bytes)], []);
  assert.equal(parseAttributes(new Uint8Array([9, 0, 1, 0, 5])).size, 0);
  assert.equal(parseAttributes(new Uint8Array([0, 0, 1, 0])).size, 0);
});

test('netlink sockets and namespaces leave no descriptors behind', netnsSkip, () => {
  const before = readdirSync('/proc/self/fd').length;
  for (let i = 0; i < 5; i++) {
    using a = scratchNetns();
    listLinks(a.netlink);
  }
  assert.equal(readdirSync('/proc/self/fd').length, before);
});
