// The first of an agent's start: it makes the node its own and has the programs loaded by threads of the pool. It imports
// little, so that the verifier is at work while the rest of the agent is imported and the API server is asked.
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import {
  createDatapath,
  type Datapath,
  type DatapathOptions,
  datapathObjects,
} from '../../connect/datapath/load-datapath.ts';
import { ensureNodeDevices, type NodeDevices } from '../../connect/routing/node-devices.ts';
import { createSocketHooks, type SocketHooks, socketHooksObject } from '../../connect/services/socket-hooks.ts';
import { errorText, WeirError } from '../../core/errors.ts';
import { loadObjects } from '../../kernel/bpf-object.ts';
import { HostFirewall } from '../../kernel/datapath.gen.ts';
import { type FolderLock, lockFolder } from '../../kernel/folder-lock.ts';
import { mount } from '../../kernel/libc.ts';
import { type Netlink, openNetlink } from '../../kernel/netlink.ts';
import type { Log } from '../log.ts';
import { type AgentSettings, ticks } from './settings.ts';
import { deviceMtu } from './traffic-devices.ts';

/** An agent is being started: the node is its own, and the programs are on their way. */
export interface TakenNode {
  readonly startedAtMs: number;
  readonly lock: FolderLock;
  readonly netlink: Netlink;
  readonly mtu: number;
  readonly devices: NodeDevices;
  readonly options: DatapathOptions;
  readonly loading: Promise<{
    readonly datapath: Datapath;
    readonly hooks: SocketHooks;
  }>;
}

const hostFirewallModes = {
  off: HostFirewall.HOST_FIREWALL_OFF,
  audit: HostFirewall.HOST_FIREWALL_AUDIT,
  enforce: HostFirewall.HOST_FIREWALL_ENFORCE,
} as const;

/** An agent that is being ended may need a moment. */
const lockWaitMs = 5_000;

/** Throws where no agent can run; what the loading meets is for whoever waits for it. */
export async function takeNode(settings: AgentSettings, log: Log): Promise<TakenNode> {
  const startedAtMs = Date.now();
  if (process.getuid?.() !== 0) throw new WeirError('NOT_ROOT', 'the agent loads programs into the kernel');
  for (const folder of [settings.stateDir, settings.runDir]) mkdirSync(folder, { recursive: true, mode: 0o755 });
  ensureBpffs(settings.bpffs);
  const pinDir = join(settings.bpffs, 'weir');
  const lock = await lockFolder(pinDir, lockWaitMs);
  if (lock === undefined) throw new WeirError('AGENT_RUNNING', `it holds ${pinDir}`);

  const netlink = openNetlink();
  const mtu = settings.mtu ?? deviceMtu(netlink, settings.devices);
  const devices = ensureNodeDevices(netlink, mtu);
  const options: DatapathOptions = {
    netlink,
    objects: settings.objects,
    pinDir,
    constants: {
      net_ifindex: devices.netIfindex,
      host_ifindex: devices.hostIfindex,
      report_interval_ticks: ticks(settings.reportIntervalMs),
      drop_reports_per_second: settings.dropReportsPerSecond,
      host_firewall: hostFirewallModes[settings.hostFirewall],
    },
    maxEntries: settings.mapEntries,
    onError: (message, error) => log.warn(message, { error: errorText(error) }),
  };
  const loading = load(options, settings.bindProtection === 'on');
  loading.catch(() => {}); // it is waited for later
  return { startedAtMs, lock, netlink, mtu, devices, options, loading };
}

async function load(options: DatapathOptions, bindProtection: boolean): Promise<Awaited<TakenNode['loading']>> {
  try {
    const [hooks, ...datapath] = await Promise.all(
      loadObjects([socketHooksObject({ ...options, bindProtection }), ...datapathObjects(options)]),
    );
    return { datapath: createDatapath(options, datapath), hooks: createSocketHooks(options.pinDir, hooks!) };
  } catch (error) {
    throw await explained(error);
  }
}

/** Where the kernel refuses: what it lacks rather than what it answered. */
async function explained(error: unknown): Promise<unknown> {
  if (error instanceof WeirError) return error;
  const { probeKernel } = await import('../../kernel/doctor.ts');
  const missing = probeKernel().filter((row) => row.required && row.state === 'no');
  if (missing.length === 0) return error;
  const names = missing.map((row) => row.feature).join(', ');
  return new WeirError('KERNEL_UNSUPPORTED', `this kernel has no ${names} (${errorText(error)})`);
}

/** Mounts the bpf file system when it is not, and makes the folder in which everything is pinned. */
function ensureBpffs(path: string): void {
  mkdirSync(path, { recursive: true });
  if (existsSync(join(path, 'weir'))) return;
  try {
    mkdirSync(join(path, 'weir'));
  } catch {
    mount('bpf', path, 'bpf', 0);
    mkdirSync(join(path, 'weir'), { recursive: true });
  }
}
