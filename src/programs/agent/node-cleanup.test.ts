import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { lockFolder } from '../../kernel/folder-lock.ts';
import { createVeth, listLinks } from '../../kernel/links.ts';
import { withNetns } from '../../kernel/netns.ts';
import { netnsSkip, scratchNetns } from '../../kernel/testdata/scratch-netns.ts';
import { cleanNode } from './node-cleanup.ts';

function folders(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), 'weir-cleanup-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const names = { bpffs: 'bpf', runDir: 'run', stateDir: 'lib', cniBinDir: 'bin', cniConfDir: 'conf' } as const;
  const paths = Object.fromEntries(Object.entries(names).map(([key, name]) => [key, join(folder, name)])) as Record<
    keyof typeof names,
    string
  >;
  for (const path of Object.values(paths)) mkdirSync(path);
  return { ...paths, state: false, force: false, dryRun: false };
}

test(
  'cleanNode() takes away devices and files, keeps what others own, and finds nothing the second time',
  netnsSkip,
  async (t) => {
    using netns = scratchNetns();
    const options = folders(t);
    createVeth(netns.netlink, { name: 'weir_host', peer: { name: 'weir_net' } });
    createVeth(netns.netlink, { name: 'weir7', peer: { name: 'other' } });
    createVeth(netns.netlink, { name: 'weird', peer: { name: 'eth7' } });
    writeFileSync(join(options.cniBinDir, 'weir-cni'), '');
    writeFileSync(join(options.cniBinDir, 'bridge'), '');
    writeFileSync(join(options.stateDir, 'numbers.json'), '{}');
    // Without pins nothing is waited for: all of it happens within the namespace.
    const clean = (more: object = {}) => {
      const done: Promise<string[]>[] = [];
      withNetns(netns.fd, () => void done.push(cleanNode({ ...options, ...more })));
      return done[0]!;
    };
    const found = await clean({ dryRun: true });
    assert.ok(existsSync(join(options.cniBinDir, 'weir-cni')));
    assert.deepEqual(await clean(), found);
    assert.deepEqual(
      listLinks(netns.netlink)
        .map((link) => link.name)
        .sort(),
      ['eth7', 'lo', 'weird'],
    );
    assert.ok(existsSync(join(options.cniBinDir, 'bridge')) && existsSync(join(options.stateDir, 'numbers.json')));
    assert.deepEqual(await clean(), []);
    assert.equal((await clean({ state: true })).length, 1);
    assert.ok(!existsSync(options.stateDir));
  },
);

test('cleanNode() leaves a node alone on which an agent runs', netnsSkip, async (t) => {
  const options = folders(t);
  mkdirSync(join(options.bpffs, 'weir'));
  writeFileSync(join(options.cniBinDir, 'weir-cni'), '');
  const agent = await lockFolder(join(options.bpffs, 'weir'), 0);
  await assert.rejects(cleanNode(options), { code: 'AGENT_RUNNING' });
  assert.ok(existsSync(join(options.cniBinDir, 'weir-cni')));
  agent?.close();
});
