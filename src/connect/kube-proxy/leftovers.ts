// Looks on this node for kube-proxy and for what it left: rules of iptables and nftables, ipsets, entries and the device of
// IPVS. Each thing says what it would do beside Weir, and how it goes.
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { basename } from 'node:path';
import { errorText } from '../../core/errors.ts';
import { listAddresses } from '../../kernel/addresses.ts';
import { commandOutput } from '../../kernel/command-output.ts';
import { deleteLink, listLinks } from '../../kernel/links.ts';
import { openNetlink } from '../../kernel/netlink.ts';
import { isProxySet, proxyDevice, proxyTable } from './known-names.ts';
import { findInRules, removalScript } from './saved-rules.ts';

/** A thing of kube-proxy's. */
export interface ProxyLeftover {
  readonly what: string;
  readonly harm: string;
  /** What stays because somebody else uses it. */
  readonly stays?: string;
  /** Throws when it cannot be done. Safe to repeat. */
  readonly remove: () => void;
}

/** What was found. */
export interface ProxyTraces {
  /** Processes in this network namespace. */
  readonly running: readonly { readonly pid: number; readonly command: string }[];
  /** In the order in which they have to go. */
  readonly leftovers: readonly ProxyLeftover[];
  /** Where could not be looked, and why. */
  readonly unknown: readonly string[];
}

const harm = {
  rules:
    'sends connections that Weir does not translate in the system call to endpoints that nobody keeps up: they reach pods that are gone',
  set: 'does nothing by itself; rules of iptables refer to it',
  ipvs: 'takes connections to the addresses of services before Weir’s rules for them, to endpoints that nobody keeps up',
  device: 'has the addresses of services: the node takes packets for them as its own, and answers for them itself',
};

/** Looks; changes nothing. */
export function findProxyTraces(): ProxyTraces {
  const unknown: string[] = [];
  const leftovers: ProxyLeftover[] = [];
  for (const look of [inIptables, inNftables, inSets, inIpvs, onDevices]) {
    try {
      leftovers.push(...look(unknown));
    } catch (error) {
      unknown.push(errorText(error));
    }
  }
  return { running: runningProxies(), leftovers, unknown };
}

/** kube-proxy as a process that sees this node's network. */
function runningProxies(): { pid: number; command: string }[] {
  const here = readlinkSync('/proc/self/ns/net');
  return readdirSync('/proc').flatMap((name) => {
    if (!/^\d+$/.test(name)) return [];
    try {
      const [program = ''] = readFileSync(`/proc/${name}/cmdline`, 'utf8').split('\0');
      if (basename(program) !== 'kube-proxy' || readlinkSync(`/proc/${name}/ns/net`) !== here) return [];
      return [{ pid: Number(name), command: program }];
    } catch {
      return []; // It has ended meanwhile, or is not ours to look at.
    }
  });
}

function run(program: string, args: readonly string[], stdin?: string): string {
  const output = commandOutput(program, args, stdin);
  if (output === undefined) throw new Error(`${program} is not installed here`);
  if (output.status !== 0) throw new Error(`${program} ${args.join(' ')}: ${output.stderr.trim() || output.status}`);
  return output.stdout;
}

function inIptables(unknown: string[]): ProxyLeftover[] {
  return (['iptables', 'ip6tables'] as const).flatMap((family) => {
    const found: ProxyLeftover[] = [];
    // Asking the old kind where it is not in use would load it.
    const names = `/proc/net/${family === 'iptables' ? 'ip_tables_names' : 'ip6_tables_names'}`;
    const usesOld = existsSync(names) && readFileSync(names, 'utf8').trim() !== '';
    let asked = 0;
    for (const kind of usesOld ? ['-nft', '-legacy'] : ['-nft']) {
      const saved = commandOutput(`${family}${kind}-save`, []);
      if (saved === undefined) {
        if (kind === '-legacy')
          unknown.push(`${family}: rules of the old kind are in use, and ${family}-legacy-save is not installed`);
        continue;
      }
      asked++;
      if (saved.status !== 0) unknown.push(`${family}${kind}-save: ${saved.stderr.trim()}`);
      for (const leftover of findInRules(saved.stdout)) {
        const { table, chains, jumps, strangers } = leftover;
        found.push({
          what: `${family}${kind}: ${chains.length} chains in table ${table}, ${jumps.length} rules that lead there`,
          harm: harm.rules,
          ...(strangers.length === 0
            ? {}
            : { stays: `rules of somebody else lead there, and stay: ${strangers.join('; ')}` }),
          remove: () => void run(`${family}${kind}-restore`, ['--noflush', '--wait'], removalScript([leftover])),
        });
      }
    }
    if (asked === 0 && family === 'iptables') unknown.push('iptables: its tools are not installed');
    return found;
  });
}

function inNftables(unknown: string[]): ProxyLeftover[] {
  const listed = commandOutput('nft', ['list', 'tables']);
  if (listed === undefined) {
    unknown.push('nftables: nft is not installed');
    return [];
  }
  return [...listed.stdout.matchAll(/^table (\S+) (\S+)/gm)].flatMap(([, family = '', name = '']) =>
    name !== proxyTable
      ? []
      : [
          {
            what: `nftables: table ${family} ${name}`,
            harm: harm.rules,
            remove: () => void run('nft', ['delete', 'table', family, name]),
          },
        ],
  );
}

function inSets(): ProxyLeftover[] {
  const listed = commandOutput('ipset', ['list', '-n']);
  if (listed === undefined || listed.status !== 0) return [];
  return listed.stdout
    .split('\n')
    .filter(isProxySet)
    .map((name) => ({ what: `ipset ${name}`, harm: harm.set, remove: () => void run('ipset', ['destroy', name]) }));
}

/** Only what has an address of kube-proxy's device: other programs use IPVS, too. */
function inIpvs(unknown: string[]): ProxyLeftover[] {
  if (!existsSync('/proc/net/ip_vs')) return [];
  const own = proxyAddresses();
  if (own.size === 0) return [];
  const saved = commandOutput('ipvsadm', ['-Sn']);
  if (saved === undefined) {
    unknown.push('IPVS: ipvsadm is not installed');
    return [];
  }
  return ipvsServices(saved.stdout)
    .filter(({ address }) => own.has(address))
    .map(({ flag, at }) => ({
      what: `IPVS: service ${at}`,
      harm: harm.ipvs,
      remove: () => void run('ipvsadm', ['-D', flag, at]),
    }));
}

/** The virtual services in the output of `ipvsadm -Sn`. */
export function ipvsServices(saved: string): { flag: string; at: string; address: string }[] {
  return [...saved.matchAll(/^-A (-[tu]|--sctp-service) (\S+)/gm)].map(([, flag = '', at = '']) => ({
    flag,
    at,
    address: at.replace(/:\d+$/, '').replace(/^\[|\]$/g, ''),
  }));
}

function proxyAddresses(): Set<string> {
  const netlink = openNetlink();
  try {
    const device = listLinks(netlink).find((link) => link.name === proxyDevice);
    if (device === undefined) return new Set();
    return new Set(
      listAddresses(netlink)
        .filter((entry) => entry.ifindex === device.ifindex)
        .map((entry) => entry.address),
    );
  } finally {
    netlink.close();
  }
}

function onDevices(): ProxyLeftover[] {
  const netlink = openNetlink();
  try {
    const device = listLinks(netlink).find((link) => link.name === proxyDevice);
    if (device === undefined) return [];
    const remove = () => {
      const own = openNetlink();
      try {
        deleteLink(own, device.ifindex);
      } finally {
        own.close();
      }
    };
    return [{ what: `device ${proxyDevice} with ${proxyAddresses().size} addresses`, harm: harm.device, remove }];
  } finally {
    netlink.close();
  }
}
