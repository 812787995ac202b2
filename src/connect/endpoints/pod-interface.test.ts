import assert from 'node:assert/strict';
import { closeSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { listLinks } from '../../kernel/links.ts';
import { openNetlink } from '../../kernel/netlink.ts';
import { createNamedNetns, deleteNamedNetns, openNetns, withNetns } from '../../kernel/netns.ts';
import { createPodInterfaces, type PodInterfaces } from './pod-interface.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';

describe('createPodInterfaces', { skip }, () => {
  const [node, pod] = [`wn${process.pid.toString(36)}`, `wp${process.pid.toString(36)}`];
  let interfaces: PodInterfaces;
  let nodeFd: number;
  before(() => {
    for (const name of [node, pod]) createNamedNetns(name);
    nodeFd = openNetns(`/run/netns/${node}`);
    interfaces = withNetns(nodeFd, createPodInterfaces);
  });
  after(() => {
    interfaces?.close();
    if (nodeFd !== undefined) closeSync(nodeFd);
    for (const name of [node, pod]) deleteNamedNetns(name);
  });

  test('create answers when the pod can send', async () => {
    const netnsFd = openNetns(`/run/netns/${pod}`);
    const inPod = openNetlink({ netnsFd });
    try {
      for (let i = 0; i < 30; i++) {
        const spec = { netns: `/run/netns/${pod}`, ifname: `eth${i}`, hostName: `weir${i}`, mtu: 1500 };
        const { ifindex } = await interfaces.create({ ...spec, ipv4: `10.0.0.${i + 1}` }, () => {});
        // A list tells what is; asking for the one device would itself bring it up to date.
        const link = listLinks(inPod).find((each) => each.name === spec.ifname);
        assert.equal(link?.operational, true, `the pod's end, try ${i}`);
        await interfaces.remove(ifindex);
      }
    } finally {
      inPod.close();
      closeSync(netnsFd);
    }
  });
});
