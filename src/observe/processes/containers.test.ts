import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { createContainerGroups, parseContainerGroup } from './containers.ts';

const id = 'ab'.repeat(32);
const uid = '814380f0-1f77-4124-bfee-ab71ffb81f3b';

test('groups of cgroupfs, of systemd and of static pods are read', () => {
  const expected = { podUid: uid, containerId: id };
  assert.deepEqual(parseContainerGroup(`/kubepods/besteffort/pod${uid}/${id}`), expected);
  assert.deepEqual(parseContainerGroup(`/../kubepods/pod${uid}/${id}`), expected);
  assert.deepEqual(
    parseContainerGroup(
      `/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod${uid.replaceAll('-', '_')}.slice/cri-containerd-${id}.scope`,
    ),
    expected,
  );
  assert.equal(parseContainerGroup(`/kubepods/pod${'cd'.repeat(16)}/${id}`)?.podUid, 'cd'.repeat(16));
  for (const other of ['/', '/system.slice/sshd.service', `/kubepods/pod${uid}`, `/docker/${id}`])
    assert.equal(parseContainerGroup(other), undefined);
});

test('a group is found by its inode, one that a container made for itself too, and one that came later', () => {
  const root = mkdtempSync(join(tmpdir(), 'weir-groups-'));
  try {
    const groups = createContainerGroups(root);
    const mine = join(root, 'kubepods/besteffort', `pod${uid}`, id);
    assert.equal(groups.byId(1), undefined);
    mkdirSync(join(mine, 'inner/most'), { recursive: true });
    for (const path of [mine, join(mine, 'inner'), join(mine, 'inner/most')])
      assert.deepEqual(groups.byId(statSync(path).ino), { podUid: uid, containerId: id });
    assert.equal(groups.byId(statSync(root).ino), undefined);
  } finally {
    rmSync(root, { recursive: true });
  }
});
