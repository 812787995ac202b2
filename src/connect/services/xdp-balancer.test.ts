import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { listPinnedLinks } from '../../kernel/bpf-link.ts';
import { closeFd } from '../../kernel/libc.ts';
import { createVeth, getLink } from '../../kernel/links.ts';
import { type Netlink, openNetlink } from '../../kernel/netlink.ts';
import { createNetns, withNetns } from '../../kernel/netns.ts';
import { createXdpBalancer, type XdpChoice } from './xdp-balancer.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const objects = fileURLToPath(new URL('../../../build/bpf', import.meta.url));

describe('createXdpBalancer()', { skip }, () => {
  const pinDir = `/sys/fs/bpf/wxdp${process.pid}`;
  let netnsFd = 0;
  let netlink: Netlink;
  const devices = new Map<string, number>();
  before(() => {
    netnsFd = createNetns();
    netlink = openNetlink({ netnsFd });
    // The second is named like a VLAN device.
    for (const name of ['eth0', 'eth0.5']) {
      createVeth(netlink, { name, up: true, peer: { name: `${name}p`, up: true } });
      devices.set(name, getLink(netlink, name)!.ifindex);
    }
    mkdirSync(pinDir, { recursive: true });
  });
  after(() => {
    netlink.close();
    closeFd(netnsFd);
    rmSync(pinDir, { recursive: true, force: true });
  });

  /** One start of an agent; what it leaves attached. */
  function start(choice: XdpChoice, on: ReadonlyMap<string, number> = devices): { name: string; ifindex: number }[] {
    return withNetns(netnsFd, () => {
      const balancer = createXdpBalancer({ netlink, objects, pinDir, choice });
      assert.deepEqual(balancer.follow(on), []);
      balancer.close();
      return listPinnedLinks(join(pinDir, 'links')).map(({ name, ifindex }) => ({ name, ifindex }));
    });
  }

  test('hangs at every device, whatever its name, and stays when the agent goes', () => {
    const links = start('native');
    assert.deepEqual(links.map((each) => each.ifindex).sort(), [...devices.values()].sort());
    assert.deepEqual(start('native'), links, 'a restart keeps the links');
  });

  test('changes its mode with the setting, and goes with its device or when switched off', () => {
    start('native');
    const generic = start('generic');
    assert.ok(generic.every((each) => each.name.startsWith('xdp-generic-')));
    assert.equal(generic.length, 2);
    assert.equal(start('generic', new Map([...devices].slice(0, 1))).length, 1);
    assert.deepEqual(start('off'), []);
    assert.deepEqual(readdirSync(join(pinDir, 'links')), []);
  });

  test('auto leaves devices without hardware to tc', () => {
    assert.deepEqual(start('auto'), []);
  });
});
