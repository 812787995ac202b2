// What policies for nodes would cut on this node, before they do: its sockets are judged as the firewall would judge them,
// and what the firewall let through only because it audits is read from the connection table.
import { type RuleOrigin, rulePlace } from '../../core/rows.ts';
import { listSockets, type SocketRow } from '../../kernel/sockets.ts';
import { essentialPolicy } from '../../secure/policy/essential-traffic.ts';
import { type Connection, evaluate, type PolicyModel, type Verdict } from '../../secure/policy/evaluate.ts';
import type { Agent } from './agent.ts';
import { conntrackEntries } from './conntrack-entries.ts';
import { policyModel } from './policy-why.ts';

/** Something that the host firewall would deny. */
export interface HostDenial {
  /** `open`: a socket that is connected. `listening`: anybody of these peers who comes. `seen`: let through while auditing. */
  readonly what: 'open' | 'listening' | 'seen';
  readonly direction: 'ingress' | 'egress';
  /** An address, or who may come to a socket that listens. */
  readonly peer: string;
  readonly protocol: string;
  readonly port: number;
  /** The rules that deny it, or the policies that isolate the node. */
  readonly policies: readonly string[];
}

/** What the local API answers. */
export interface HostFirewallView {
  readonly node: string;
  readonly mode: 'off' | 'audit' | 'enforce';
  /** Policies that select this node. */
  readonly policies: readonly string[];
  readonly denials: readonly HostDenial[];
  /** How many there are beyond those. */
  readonly more: number;
}

const most = 200;
const protocolNames: Readonly<Record<number, string>> = { 1: 'icmp', 6: 'tcp', 17: 'udp', 58: 'icmpv6', 132: 'sctp' };

/** Answers the question for one node. */
export function hostFirewallOf(agent: Agent): HostFirewallView {
  const { nodeName, hostFirewall: mode } = agent.settings;
  const model = withEssential(agent, policyModel(agent));
  const written = model.policies.filter((row) => row.subject.kind === 'node' && row.tier !== 'essential');
  const denials = written.length === 0 ? [] : [...socketDenials(model, listSockets()), ...seenDenials(agent)];
  const unique = new Map(
    denials.map((row) => [[row.direction, row.peer, row.protocol, row.port, row.policies.join()].join(' '), row]),
  );
  return {
    node: nodeName,
    mode,
    policies: written.map((row) => `${row.kind}/${row.name}`),
    denials: [...unique.values()].slice(0, most),
    more: Math.max(0, unique.size - most),
  };
}

/** While the firewall is off, what is essential is not among the policies. */
function withEssential(agent: Agent, model: PolicyModel): PolicyModel {
  if (model.policies.some((row) => row.tier === 'essential')) return model;
  const own = agent.sources.nodes.get(agent.settings.nodeName);
  const row = essentialPolicy({ nodeLabels: own?.labels ?? {}, podCidrs: own?.podCidrs ?? [] });
  return { ...model, policies: [...model.policies, row] };
}

/** Judges sockets as the node's own connections. */
export function socketDenials(model: PolicyModel, sockets: readonly SocketRow[]): HostDenial[] {
  const own = model.addresses.filter((row) => row.kind === 'host').map((row) => row.address);
  const listening = sockets.filter((each) => each.state === 'listening' && !isLoopback(each.address));
  const served = new Set(listening.map((each) => `${each.protocol} ${each.port}`));
  const denials: HostDenial[] = [];
  for (const { protocol, state, address, port, peer, peerPort } of sockets) {
    if (state !== 'connected' || !own.includes(address) || own.includes(peer)) continue;
    const incoming = served.has(`${protocol} ${port}`);
    const number = protocol === 'tcp' ? 6 : 17;
    const connection: Connection = incoming
      ? { source: peer, destination: address, protocol: number, port }
      : { source: address, destination: peer, protocol: number, port: peerPort };
    const direction = incoming ? 'ingress' : 'egress';
    const verdict = evaluate(model, connection)[direction];
    if (verdict.allowed) continue;
    denials.push({ what: 'open', direction, peer, protocol, port: connection.port, policies: namesOf(verdict) });
  }
  // Stand-ins for who may come: an address outside, another node, a pod of another node.
  for (const { protocol, address, port } of listening) {
    for (const family of [4, 6]) {
      const to = own.find((each) => each.includes(':') === (family === 6));
      const any = address === '0.0.0.0' ? 4 : address === '::' ? undefined : 0;
      if (to === undefined || (any === 4 && family === 6) || (any === 0 && address !== to)) continue;
      for (const [peer, source] of strangers(model, family)) {
        const connection = { source, destination: to, protocol: protocol === 'tcp' ? 6 : 17, port };
        const verdict = evaluate(model, connection).ingress;
        if (verdict.allowed) continue;
        denials.push({ what: 'listening', direction: 'ingress', peer, protocol, port, policies: namesOf(verdict) });
      }
    }
  }
  return denials;
}

function strangers(model: PolicyModel, family: number): [string, string][] {
  const of = (wanted: (row: PolicyModel['addresses'][number]) => boolean) =>
    model.addresses.find((row) => row.address.includes(':') === (family === 6) && wanted(row))?.address;
  const node = of((row) => row.kind === 'remote-node');
  const pod = of((row) => row.kind === 'pod' && row.ifindex === 0);
  return [
    ['world', family === 6 ? '2001:db8::1' : '203.0.113.1'],
    ...(node === undefined ? [] : [['other nodes', node] as [string, string]]),
    ...(pod === undefined ? [] : [['pods', pod] as [string, string]]),
  ];
}

function isLoopback(address: string): boolean {
  return address === '::1' || address.startsWith('127.');
}

/** Connections that only the firewall's mode let through, as long as the table knows them. */
function seenDenials(agent: Agent): HostDenial[] {
  return conntrackEntries(agent.datapath, { limit: 1_000_000 })
    .filter((row) => row.audited.length > 0)
    .flatMap((row) =>
      row.audited.map((direction): HostDenial => {
        const cookie = agent.compiler.cookie(row.cookies[direction === 'egress' ? 0 : 1]);
        return {
          what: 'seen',
          direction,
          peer: direction === 'egress' ? row.destination : row.source,
          protocol: protocolNames[row.protocol] ?? String(row.protocol),
          port: row.protocol === 1 || row.protocol === 58 ? 0 : row.destinationPort,
          policies: (cookie?.rules ?? []).map(originText),
        };
      }),
    );
}

function namesOf({ decidedBy, isolatedBy }: Verdict): string[] {
  return (decidedBy.length > 0 ? decidedBy : isolatedBy).map(originText);
}

function originText(origin: RuleOrigin): string {
  const place = rulePlace(origin);
  return `${origin.name}${place === undefined ? '' : ` ${place}`}`;
}
