import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KernelError } from './kernel-error.ts';
import { createLinkRemover } from './link-remover.ts';
import { createBridge, getLink } from './links.ts';
import { withNetns } from './netns.ts';
import { netnsSkip, scratchNetns } from './testdata/scratch-netns.ts';

test(
  'createLinkRemover() removes devices, whether they are there or not, and says what the kernel refuses',
  netnsSkip,
  async () => {
    using node = scratchNetns();
    createBridge(node.netlink, { name: 'one' });
    createBridge(node.netlink, { name: 'two' });
    const [one, two] = ['one', 'two'].map((name) => getLink(node.netlink, name)!.ifindex) as [number, number];
    const remover = withNetns(node.fd, createLinkRemover);
    const loopback = 1;
    const [first, gone, refused, second] = await Promise.allSettled([
      remover.remove(one),
      remover.remove(one),
      remover.remove(loopback),
      remover.remove(two),
    ]);
    assert.deepEqual([first.status, gone.status, second.status], ['fulfilled', 'fulfilled', 'fulfilled']);
    assert.ok(refused.status === 'rejected' && refused.reason instanceof KernelError);
    assert.match(refused.reason.message, /ENOTSUP.*deleting device 1/);
    assert.deepEqual([getLink(node.netlink, one), getLink(node.netlink, two)], [undefined, undefined]);
    assert.equal(await remover.settled(), false);
    remover.close();
  },
);
