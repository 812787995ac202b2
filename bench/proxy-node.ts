// The real kube-proxy on a bare node that is joined to a lab's network: the rival of benchmarks of services.
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { kubeconfigFile, netnsFile, programFile } from '../lab/lab.ts';
import type { BedNode } from '../test/bed/bed.ts';
import type { BenchLab } from './bench-lab.ts';

const run = promisify(execFile);
/** The node on the lab's network. */
const address = '10.77.0.197';
const nodeName = 'proxy-node';

/** How kube-proxy writes its rules. */
export type ProxyMode = 'iptables' | 'nftables';

/** A node where kube-proxy may run. */
export interface ProxyNode {
  /** Starts it; what it serves is for the caller to see. Answers how it is ended, its rules too. */
  start(mode: ProxyMode): () => Promise<void>;
  close(): void;
}

/** Joins a node of a bed, in which nothing is attached, to the lab's network. */
export async function createProxyNode(lab: BenchLab, node: BedNode): Promise<ProxyNode> {
  for (const tool of ['iptables', 'nft'])
    await run('sh', ['-c', `command -v ${tool}`]).catch(() => {
      throw new Error(`kube-proxy needs ${tool}: apt-get install iptables nftables`);
    });
  const kubeconfig = join(tmpdir(), `weir-bench-${process.pid}.kubeconfig`);
  writeFileSync(
    kubeconfig,
    readFileSync(kubeconfigFile(lab.name), 'utf8').replace(/https:\/\/127\.0\.0\.1:\d+/, 'https://10.77.0.1:6443'),
    { mode: 0o600 },
  );
  const inside = `--net=/run/netns/${node.netns}`;
  const backbone = netnsFile(lab.name, 'cp');
  await run('ip', ['-n', node.netns, 'link', 'add', 'wbproxy', 'type', 'veth', 'peer', 'name', 'wbproxy1']);
  await run('ip', ['-n', node.netns, 'link', 'set', 'wbproxy1', 'netns', backbone]);
  await run('nsenter', [`--net=${backbone}`, 'ip', 'link', 'set', 'wbproxy1', 'master', 'lan', 'up']);
  await run('ip', ['-n', node.netns, 'address', 'add', `${address}/24`, 'dev', 'wbproxy']);
  await run('ip', ['-n', node.netns, 'link', 'set', 'wbproxy', 'up']);
  // It waits for its node's addresses before it does anything.
  await lab.apply([{ apiVersion: 'v1', kind: 'Node', metadata: { name: nodeName } }]);
  const status = { status: { addresses: [{ type: 'InternalIP', address: node.ipv4 }] } };
  const patch = ['patch', 'node', nodeName, '--subresource=status', '--type=merge', '-p', JSON.stringify(status)];
  await lab.kubectl(patch);
  let running: ChildProcess | undefined;
  return {
    start(mode) {
      const child = spawn(
        'nsenter',
        [
          inside,
          programFile('kube-proxy'),
          `--kubeconfig=${kubeconfig}`,
          `--proxy-mode=${mode}`,
          `--hostname-override=${nodeName}`,
          '--healthz-bind-address=127.0.0.1:10356',
          '--metrics-bind-address=127.0.0.1:10349',
          '--nodeport-addresses=0.0.0.0/0,::/0',
          '--conntrack-max-per-core=0',
          '--conntrack-tcp-timeout-established=0',
          '--conntrack-tcp-timeout-close-wait=0',
        ],
        { stdio: 'ignore' },
      );
      running = child;
      return async () => {
        child.kill('SIGKILL');
        if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
        await run('nsenter', [inside, programFile('kube-proxy'), '--cleanup']).catch(() => undefined);
      };
    },
    close() {
      running?.kill('SIGKILL');
      rmSync(kubeconfig, { force: true });
    },
  };
}
