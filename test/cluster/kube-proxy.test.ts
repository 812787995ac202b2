// What the real kube-proxy leaves in a network namespace is found and removed, in both of its modes that this machine has,
// and rules of others stay as they were.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { attempt, kubeconfigFile } from '../../lab/lab.ts';
import { programFile } from '../../lab/programs.ts';
import { netnsName } from '../../lab/state.ts';
import { labName, type SharedLab, sharedLab, waitFor } from './shared-lab.ts';

const weir = fileURLToPath(new URL('../../bin/weir', import.meta.url));
const tools = ['iptables-save', 'ip6tables-save', 'nft'];
const missing = await Promise.all(
  tools.map(async (tool) => (await attempt(['sh', '-c', `command -v ${tool}`])).status),
);
const skip =
  process.getuid?.() !== 0
    ? 'needs root'
    : missing.some((status) => status !== 0)
      ? `needs ${tools.join(', ')} (apt-get install iptables nftables)`
      : false;

describe('doctor --fix kube-proxy', { skip }, () => {
  let lab: SharedLab;
  const namespace = netnsName(labName, 'proxy');
  const backbone = netnsName(labName, 'cp');
  const kubeconfig = join(tmpdir(), `weir-kube-proxy-${process.pid}.kubeconfig`);
  let proxy: ChildProcess | undefined;

  const inside = async (...argv: string[]) => attempt(['ip', 'netns', 'exec', namespace, ...argv]);
  const must = async (...argv: string[]) => {
    const result = await attempt(argv);
    assert.equal(result.status, 0, `${argv.join(' ')}: ${result.stderr}`);
    return result.stdout;
  };
  /** Rules without counters and comments of the tools. */
  const rules = async () => {
    const texts = [];
    for (const argv of [['iptables-save'], ['ip6tables-save'], ['nft', 'list', 'tables']])
      texts.push((await inside(...argv)).stdout.replace(/^#.*\n/gm, '').replace(/\[\d+:\d+\]/g, ''));
    return texts.join('\n');
  };

  async function startProxy(mode: string): Promise<void> {
    const child = spawn(
      'ip',
      [
        ...[
          'netns',
          'exec',
          namespace,
          programFile('kube-proxy'),
          `--kubeconfig=${kubeconfig}`,
          `--proxy-mode=${mode}`,
        ],
        ...['--hostname-override=node1', '--healthz-bind-address=127.0.0.1:10356'],
        ...['--metrics-bind-address=127.0.0.1:10349', '--conntrack-max-per-core=0'],
        ...['--conntrack-tcp-timeout-established=0', '--conntrack-tcp-timeout-close-wait=0'],
      ],
      { stdio: 'ignore' },
    );
    proxy = child;
    const written = mode === 'nftables' ? /table ip6? kube-proxy/ : /KUBE-SVC-/;
    await waitFor(`rules of kube-proxy (${mode})`, async () => written.test(await rules()), 30_000, 100);
  }
  /** As a crash or a careless removal would: it cleans nothing up. */
  async function killProxy(): Promise<void> {
    if (proxy === undefined || proxy.exitCode !== null) return;
    proxy.kill('SIGKILL');
    await once(proxy, 'exit');
    proxy = undefined;
  }

  before(async () => {
    lab = await sharedLab();
    const config = readFileSync(kubeconfigFile(labName), 'utf8');
    await attempt(['ip', 'netns', 'delete', namespace]);
    await must('ip', 'netns', 'add', namespace);
    await must(
      ...['ip', '-n', backbone, 'link', 'add', 'proxy', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', namespace],
    );
    for (const argv of [
      ['-n', backbone, 'link', 'set', 'proxy', 'master', 'lan', 'up'],
      ['-n', namespace, 'link', 'set', 'lo', 'up'],
      ['-n', namespace, 'link', 'set', 'eth0', 'up'],
      ['-n', namespace, 'address', 'add', '10.77.0.198/24', 'dev', 'eth0'],
      ['-n', namespace, 'address', 'add', 'fd77::c6/64', 'dev', 'eth0', 'nodad'],
      ['-n', namespace, 'route', 'add', 'default', 'via', '10.77.0.2'],
    ])
      await must('ip', ...argv);
    writeFileSync(kubeconfig, config.replace(/https:\/\/127\.0\.0\.1:\d+/, 'https://10.77.0.1:6443'), { mode: 0o600 });
    assert.ok(lab.record.port > 0);
  });
  after(async () => {
    await killProxy();
    await attempt(['ip', 'netns', 'delete', namespace]);
    await attempt(['rm', '-f', kubeconfig]);
  });

  for (const mode of ['iptables', 'nftables'])
    test(`removes what kube-proxy in its mode ${mode} left, and nothing else`, async () => {
      for (const table of [
        ['filter', 'FORWARD', 'ACCEPT'],
        ['nat', 'POSTROUTING', 'MASQUERADE'],
      ] as const)
        await inside(
          'iptables',
          '-t',
          table[0],
          '-A',
          table[1],
          '-s',
          '192.0.2.7',
          '-m',
          'comment',
          '--comment',
          '-j KUBE-SERVICES',
          '-j',
          table[2],
        );
      await inside('nft', 'add', 'table', 'inet', 'mine');
      const before = await rules();
      await startProxy(mode);
      const refused = await inside(weir, 'doctor', '--fix', 'kube-proxy', '--yes');
      assert.notEqual(refused.status, 0);
      assert.match(refused.stderr, /KUBE_PROXY_RUNNING/);
      await killProxy();

      const with_ = await rules();
      const report = await inside(weir, 'doctor');
      assert.match(report.stdout, /kube-proxy +problem/);
      const listed = await inside(weir, 'doctor', '--fix', 'kube-proxy', '--dry-run');
      assert.match(
        listed.stdout,
        mode === 'nftables' ? /found: nftables: table ip kube-proxy/ : /found: iptables-nft: \d+ chains in table nat/,
      );
      const unasked = await inside(weir, 'doctor', '--fix', 'kube-proxy');
      assert.match(unasked.stderr, /--yes/);
      assert.equal(await rules(), with_, 'listing and asking change nothing');

      const fixed = await inside(weir, 'doctor', '--fix', 'kube-proxy', '--yes');
      assert.equal(fixed.status, 0, fixed.stderr);
      const left = await rules();
      // kubelet has that chain as well, and what makes it is not always kube-proxy.
      const kubelets = /^.*KUBE-FIREWALL.*\n/gm;
      const tables = (text: string) =>
        text
          .replace(kubelets, '')
          .replace(/^table .*\n/gm, '')
          .replace(/^(\*(mangle|filter|nat)|:[A-Z]+ ACCEPT.*|COMMIT)\n/gm, '')
          .trim();
      assert.equal(tables(left), tables(before));
      assert.doesNotMatch(left, /kube-proxy|KUBE-(SVC|SEP|SERVICES -|MARK)/);
      assert.match(left, /table inet mine/);
      assert.match((await inside(weir, 'doctor', '--fix', 'kube-proxy', '--yes')).stdout, /Nothing of kube-proxy/);
    });
});
