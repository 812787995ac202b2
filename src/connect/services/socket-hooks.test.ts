import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { loadObject } from '../../kernel/bpf-object.ts';
import { findCgroup2 } from '../../kernel/cgroups.ts';
import { datapathMaps, ServiceScope } from '../../kernel/datapath.gen.ts';
import { isErrno } from '../../kernel/kernel-error.ts';
import { bind, closeFd, socket } from '../../kernel/libc.ts';
import { getLink, setLink } from '../../kernel/links.ts';
import { openNetlink } from '../../kernel/netlink.ts';
import { createNetns, withNetns } from '../../kernel/netns.ts';
import { addressBytes } from '../datapath/address-keys.ts';
import { createSocketHooks, type SocketHooks, socketHooksObject } from './socket-hooks.ts';

const group2 = findCgroup2();
const skip = process.getuid?.() !== 0 ? 'needs root' : group2 === undefined ? 'needs cgroup v2' : false;
const objects = fileURLToPath(new URL('../../../build/bpf', import.meta.url));
const protocols = { TCP: 6, UDP: 17 } as const;
type Protocol = keyof typeof protocols;

/** How the bind of a new socket ended; the socket is gone afterwards. */
function bindOf(protocol: Protocol, address: string, port: number, family = address.includes(':') ? 10 : 2): string {
  const bytes = new Uint8Array(family === 10 ? 28 : 16);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, family, true);
  view.setUint16(2, port);
  const full = addressBytes(address);
  if (family === 10) bytes.set(full, 8);
  else bytes.set(full.slice(12), 4);
  const fd = socket(family, protocol === 'TCP' ? 1 : 2, 0);
  try {
    bind(fd, bytes);
    return 'bound';
  } catch (error) {
    for (const code of ['EADDRINUSE', 'EPERM', 'EADDRNOTAVAIL']) if (isErrno(error, code)) return code;
    throw error;
  } finally {
    closeFd(fd);
  }
}

describe('createSocketHooks()', { skip }, () => {
  const group = join(group2 ?? '', `wbind${process.pid}`);
  const home = join(group2 ?? '', /^0::(.*)$/m.exec(readFileSync('/proc/self/cgroup', 'utf8'))?.[1] ?? '/');
  const pinDir = `/sys/fs/bpf/wbind${process.pid}`;
  let node = 0;
  let pod = 0;
  let hooks: SocketHooks | undefined;

  /** One start of an agent. */
  function start(bindProtection: boolean): void {
    hooks?.close();
    withNetns(node, () => {
      hooks = createSocketHooks(pinDir, loadObject(socketHooksObject({ objects, pinDir, bindProtection })));
    });
    hooks!.attach(group);
  }

  before(() => {
    [node, pod] = [createNetns(), createNetns()];
    const netlink = openNetlink({ netnsFd: node });
    setLink(netlink, getLink(netlink, 'lo')!.ifindex, { up: true });
    netlink.close();
    mkdirSync(group);
    mkdirSync(pinDir);
    start(true);
    for (const [address, port, protocol] of [
      ['0.0.0.0', 30_080, 'TCP'],
      ['::', 30_081, 'TCP'],
      ['0.0.0.0', 30_053, 'UDP'],
      ['::', 30_053, 'UDP'],
      ['10.96.0.10', 30_090, 'TCP'],
    ] as const) {
      hooks!.map('services').update(
        datapathMaps.services.key.encode({
          addr: addressBytes(address),
          port,
          protocol: protocols[protocol],
          scope: ServiceScope.SCOPE_INSIDE,
        }),
        datapathMaps.services.value.encode({
          id: 1,
          firstSlot: 0,
          slotCount: 0,
          affinitySeconds: 0,
          flags: 0,
          owner: 0,
        }),
      );
    }
    writeFileSync(join(group, 'cgroup.procs'), String(process.pid));
  });
  after(() => {
    writeFileSync(join(home, 'cgroup.procs'), String(process.pid));
    hooks?.close();
    rmSync(pinDir, { recursive: true, force: true });
    rmdirSync(group);
    for (const fd of [node, pod]) if (fd !== 0) closeFd(fd);
  });

  test('the node is refused ports that lead to services, by protocol and family, on any address', () => {
    const cases: readonly [Protocol, string, number, string][] = [
      ['TCP', '0.0.0.0', 30_080, 'EADDRINUSE'],
      ['TCP', '127.0.0.1', 30_080, 'EADDRINUSE'],
      ['TCP', '::', 30_080, 'EADDRINUSE'], // IPv4's as well
      ['TCP', '::1', 30_080, 'bound'],
      ['UDP', '0.0.0.0', 30_080, 'bound'],
      ['UDP', '::', 30_080, 'bound'],
      ['TCP', '0.0.0.0', 30_081, 'bound'],
      ['TCP', '::', 30_081, 'EADDRINUSE'],
      ['TCP', '::1', 30_081, 'EADDRINUSE'],
      ['UDP', '0.0.0.0', 30_053, 'EADDRINUSE'],
      ['UDP', '::1', 30_053, 'EADDRINUSE'],
      ['TCP', '::', 30_053, 'bound'],
      ['TCP', '0.0.0.0', 30_082, 'bound'],
      ['TCP', '::', 0, 'bound'],
      ['UDP', '0.0.0.0', 0, 'bound'],
      ['TCP', '0.0.0.0', 30_090, 'bound'], // of an address that is a service's, not of the node
    ];
    withNetns(node, () => {
      for (const [protocol, address, port, expected] of cases)
        assert.equal(bindOf(protocol, address, port), expected, `${protocol} ${address} ${port}`);
      assert.equal(bindOf('TCP', '127.0.0.1', 30_080, 10), 'EADDRINUSE', 'IPv4 through a socket of IPv6');
      assert.equal(bindOf('TCP', '127.0.0.1', 30_081, 10), 'bound', 'IPv4 through a socket of IPv6');
    });
  });

  test('pods bind what they like: their ports are their own', () => {
    withNetns(pod, () => {
      assert.equal(bindOf('TCP', '0.0.0.0', 30_080), 'bound');
      assert.equal(bindOf('UDP', '::', 30_053), 'bound');
    });
  });

  test('without the protection the node binds what it likes', () => {
    start(false);
    withNetns(node, () => {
      assert.equal(bindOf('TCP', '0.0.0.0', 30_080), 'bound');
      assert.equal(bindOf('UDP', '::', 30_053), 'bound');
    });
    start(true);
    withNetns(node, () => assert.equal(bindOf('TCP', '0.0.0.0', 30_080), 'EADDRINUSE'));
  });
});
