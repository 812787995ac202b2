// Questions about the machine: who we are, what is mounted, which limits hold.
import { readFileSync } from 'node:fs';
import { release } from 'node:os';
import { findCgroup2 } from '../cgroups.ts';
import { readSysctl } from '../sysctl.ts';
import { CannotTell, type Probe } from './probe.ts';

const capabilities: Record<string, number> = {
  CAP_NET_ADMIN: 12,
  CAP_NET_RAW: 13,
  CAP_SYS_ADMIN: 21,
  CAP_SYS_RESOURCE: 24,
  CAP_PERFMON: 38,
  CAP_BPF: 39,
};
const neededCapabilities = ['CAP_NET_ADMIN', 'CAP_SYS_ADMIN'];
const fewInotifyInstances = 128;

export const systemProbes: readonly Probe[] = [
  {
    feature: 'Linux',
    neededFor: 'everything',
    attempt() {
      if (process.platform !== 'linux') throw new Error(`this is ${process.platform}`);
      return `${release()} ${process.arch}`;
    },
  },
  {
    feature: 'privileges',
    neededFor: 'loading programs, making namespaces',
    attempt() {
      const status = readFileSync('/proc/thread-self/status', 'utf8');
      const mask = BigInt(`0x${status.match(/^CapEff:\s*([0-9a-f]+)$/m)?.[1] ?? '0'}`);
      const held = Object.keys(capabilities).filter((name) => (mask >> BigInt(capabilities[name]!)) & 1n);
      const missing = Object.keys(capabilities).filter((name) => !held.includes(name));
      const lacking = neededCapabilities.filter((name) => missing.includes(name));
      // Who is not root may become it; that says nothing about the machine.
      if (lacking.length > 0 && process.getuid?.() !== 0) throw new CannotTell('could not be tried: run it as root');
      if (lacking.length > 0) throw new Error(`missing ${lacking.join(', ')}: a container or sandbox holds them back`);
      return missing.length === 0 ? 'all that Weir uses' : `all but ${missing.join(', ')}`;
    },
  },
  {
    feature: 'cgroup v2',
    neededFor: 'services in the system call, processes of sockets',
    instead: 'nothing',
    attempt() {
      const path = findCgroup2();
      if (path === undefined) throw new Error('not mounted anywhere');
      return `mounted at ${path}`;
    },
  },
  {
    feature: 'IPv4 forwarding',
    neededFor: 'traffic of pods that the stack forwards',
    instead: 'the agent switches it on',
    attempt() {
      if (readSysctl('net.ipv4.ip_forward') !== '1') throw new Error('net.ipv4.ip_forward is 0');
      return '';
    },
  },
  {
    feature: 'inotify instances',
    neededFor: 'container runtime and kubelet of a lab with several nodes',
    instead: 'fewer nodes in a lab',
    attempt() {
      const limit = Number(readSysctl('fs.inotify.max_user_instances') ?? Number.NaN);
      if (Number.isNaN(limit)) throw new CannotTell('the limit cannot be read');
      if (limit < fewInotifyInstances) throw new Error(`${limit} for each user: raise fs.inotify.max_user_instances`);
      return `${limit} for each user`;
    },
  },
];
