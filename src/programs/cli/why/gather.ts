// Asks all nodes for what they know of a connection.
import { create } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { GetFlowsRequestSchema } from '../../../../proto/gen/observer/observer_pb.js';
import { WeirError } from '../../../core/errors.ts';
import { canonicalIp } from '../../../core/ip.ts';
import type { WhyConnection, WhyEnd, WhyEvidence, WhyFlow, WhyPolicy } from '../../../observe/why/evidence.ts';
import type { EndpointView } from '../../agent/api-routes.ts';
import type { ConnectionView } from '../../agent/conntrack-entries.ts';
import type { PolicyWhyView } from '../../agent/policy-why.ts';
import type { ServiceView } from '../../agent/services-view.ts';
import type { HealthView } from '../../agent/status-view.ts';
import { readNode } from '../observe/node-stream.ts';
import { whyText } from '../policy-why.ts';
import { backendAddresses } from '../service-detail.ts';
import { askAgent, resolveTargets, type Target, type TargetOptions } from '../targets.ts';
import { flowFacts } from './flow-facts.ts';

/** What is asked. */
export interface WhyQuestion {
  readonly from: string;
  readonly to?: string;
  readonly port?: number;
  /** `tcp`, `udp` or `sctp`; undefined: any, and TCP where policy is asked. */
  readonly protocol?: string;
  readonly sinceMs: number;
}

/** `shop/db:5432` as its name and its port; an IPv6 address has a port in brackets only. */
export function splitPort(text: string): { name: string; port?: number } {
  const match = /^\[(.+)\]:(\d+)$/.exec(text) ?? /^([^:]+):(\d+)$/.exec(text);
  if (match === null) return { name: text.replace(/^\[(.+)\]$/, '$1') };
  return { name: match[1]!, port: Number(match[2]) };
}

/** Gathers. A node that does not answer is part of the evidence. */
export async function gatherEvidence(question: WhyQuestion, options: TargetOptions): Promise<WhyEvidence> {
  const { targets } = resolveTargets(options);
  const nowMs = Date.now();
  const unreachable = new Set<string>();
  const nameOf = (target: Target) => target.node ?? target.socket;
  async function each<T>(path: string): Promise<{ node: string; value: T }[]> {
    const answers = await Promise.all(
      targets.map(async (target) => {
        try {
          const value = await askAgent<T>(target, path);
          return value === undefined ? [] : [{ node: nameOf(target), value }];
        } catch (error) {
          if (!(error instanceof WeirError) || error.code !== 'AGENT_UNREACHABLE') throw error;
          unreachable.add(nameOf(target));
          return [];
        }
      }),
    );
    return answers.flat();
  }
  const [health, endpoints, services] = await Promise.all([
    each<HealthView>('/v1/health'),
    each<EndpointView[]>('/v1/endpoints'),
    each<ServiceView[]>('/v1/services'),
  ]);
  if (health.length === 0) throw new WeirError('AGENT_UNREACHABLE', 'no node answers');
  const pods = endpoints.flatMap(({ value }) => value);
  const from = resolveEnd(
    question.from,
    pods,
    services.flatMap(({ value }) => value),
    undefined,
  );
  if (from.kind === 'name' || from.kind === 'service') Object.assign(from, { kind: 'unknown' });
  const to =
    question.to === undefined
      ? undefined
      : resolveEnd(
          question.to,
          pods,
          services.flatMap(({ value }) => value),
          from,
        );
  const port = question.port ?? servicePort(to, services);

  const flows = (
    await Promise.all(
      targets.map((target) =>
        flowsOf(target, from, question.sinceMs, () => {
          unreachable.add(nameOf(target));
        }),
      ),
    )
  ).flat();
  flows.sort((a, b) => a.timeMs - b.timeMs);
  const connections = await connectionsOf(from, to, each);
  const policy = to === undefined ? undefined : await policyOf(from, to, port, question.protocol ?? 'tcp', each);
  return {
    nowMs,
    sinceMs: question.sinceMs,
    from,
    ...(to && { to }),
    ...(port !== undefined && { port }),
    flows: dedupe(flows.filter((flow) => begins(flow, from) && concerns(flow, to, port, question.protocol))),
    connections: connections.filter(
      (each) => port === undefined || to?.kind === 'service' || each.destinationPort === port,
    ),
    ...(policy && { policy }),
    nodes: [
      ...health
        .filter(({ node }) => !unreachable.has(node))
        .map(({ node, value }) => ({ node, reachable: true, problems: value.problems })),
      ...[...unreachable].map((node) => ({ node, reachable: false, problems: [] })),
    ],
  };
}

type Pod = EndpointView;

/** Who is meant: a pod, a service, an address or a name, in this order. */
function resolveEnd(
  text: string,
  pods: readonly Pod[],
  services: readonly ServiceView[],
  from: WhyEnd | undefined,
): WhyEnd {
  const podEnd = (pod: Pod): WhyEnd => ({
    text: `${pod.namespace}/${pod.pod}`,
    kind: 'pod',
    namespace: pod.namespace,
    name: pod.pod,
    addresses: [pod.ipv4, pod.ipv6].flatMap((each) => each ?? []),
    node: pod.node,
    state: pod.state,
  });
  const address = canonicalIp(text);
  if (address !== undefined && !address.includes('/')) {
    const pod = pods.find((each) => each.ipv4 === address || each.ipv6 === address);
    if (pod !== undefined) return podEnd(pod);
    const service = services.find((each) => each.frontends.some((frontend) => frontend.address === address));
    return service === undefined ? { text, kind: 'address', addresses: [address] } : serviceEnd(service, services);
  }
  const [namespace, name] = text.includes('/') ? (text.split('/', 2) as [string, string]) : [from?.namespace, text];
  const inNamespace = <T extends { namespace: string }>(each: T) =>
    namespace === undefined || each.namespace === namespace;
  const exact = pods.find((each) => inNamespace(each) && each.pod === name);
  if (exact !== undefined) return podEnd(exact);
  const service = services.find((each) => inNamespace(each) && each.name === name);
  if (service !== undefined && from !== undefined) return serviceEnd(service, services);
  const prefixed = pods.find((each) => inNamespace(each) && name !== '' && each.pod.startsWith(`${name}-`));
  if (prefixed !== undefined) return podEnd(prefixed);
  if (service !== undefined) return serviceEnd(service, services);
  if (!text.includes('/') && /^[\w-]+(\.[\w-]+)+\.?$/.test(text)) return { text, kind: 'name', addresses: [] };
  return { text, kind: text.includes('/') || from === undefined ? 'unknown' : 'name', addresses: [] };
}

function serviceEnd(service: ServiceView, all: readonly ServiceView[]): WhyEnd {
  const views = all.filter((each) => each.namespace === service.namespace && each.name === service.name);
  const backends = backendAddresses(views);
  return {
    text: `${service.namespace}/${service.name}`,
    kind: 'service',
    namespace: service.namespace,
    name: service.name,
    addresses: [
      ...new Set([
        ...views.flatMap((view) => view.frontends.map((each) => each.address)),
        ...[...backends.all].map((each) => each.slice(0, each.indexOf(' '))),
      ]),
    ],
    backends: backends.all.size,
    serving: backends.serving.size,
    problems: views[0]?.problems ?? [],
  };
}

function servicePort(to: WhyEnd | undefined, services: readonly { value: ServiceView[] }[]): number | undefined {
  if (to?.kind !== 'service') return undefined;
  const view = services.flatMap(({ value }) => value).find((each) => `${each.namespace}/${each.name}` === to.text);
  const ports = new Set(view?.frontends.flatMap((each) => each.backends.map((backend) => backend.port)));
  return ports.size === 1 ? [...ports][0] : undefined;
}

async function flowsOf(target: Target, from: WhyEnd, sinceMs: number, onUnreachable: () => void): Promise<WhyFlow[]> {
  const ends =
    from.kind === 'pod'
      ? [{ sourcePod: [`${from.namespace}/${from.name}`] }, { destinationPod: [`${from.namespace}/${from.name}`] }]
      : from.addresses.length > 0
        ? [{ sourceIp: [...from.addresses] }, { destinationIp: [...from.addresses] }]
        : [];
  if (ends.length === 0) return [];
  const request = create(GetFlowsRequestSchema, { since: timestampFromMs(sinceMs), whitelist: ends });
  const flows: WhyFlow[] = [];
  try {
    for await (const { response } of readNode(target, request))
      if (response.responseTypes.case === 'flow') flows.push(flowFacts(response.responseTypes.value));
  } catch (error) {
    if (!(error instanceof WeirError) || error.code !== 'AGENT_UNREACHABLE') throw error;
    onUnreachable();
  }
  return flows;
}

/** Whether it is the end that was asked about which connects. Answers and errors come to it. */
function begins(flow: WhyFlow, from: WhyEnd): boolean {
  const mine = (text: string, address: string) => text === from.text || from.addresses.includes(address);
  if (flow.kind === 'answer' || flow.kind === 'icmp error') return mine(flow.destination, flow.destinationAddress);
  return mine(flow.source, flow.sourceAddress);
}

/** Whether a flow is about the other end. Questions and errors may be: the diagnosis looks at them. */
function concerns(
  flow: WhyFlow,
  to: WhyEnd | undefined,
  port: number | undefined,
  protocol: string | undefined,
): boolean {
  if (to === undefined || flow.kind === 'question' || flow.kind === 'answer' || flow.kind === 'icmp error') return true;
  // Names are asked for first: what keeps questions from being answered matters to everything.
  if (flow.port === 53 && flow.kind === 'dropped') return to.kind === 'name' || to.kind === 'service';
  const theirs =
    flow.service === to.text ||
    flow.destination === to.text ||
    flow.source === to.text ||
    to.addresses.includes(flow.destinationAddress);
  if (!theirs) return false;
  if (protocol !== undefined && flow.port !== 0 && flow.protocol.toLowerCase() !== protocol) return false;
  return port === undefined || flow.port === port || flow.port === 0 || to.kind === 'service';
}

/** Both nodes, and both pods of one node, tell of one connection: kept, but a line only once. */
function dedupe(flows: readonly WhyFlow[]): WhyFlow[] {
  const seen = new Set<string>();
  return flows.filter((flow) => {
    const key = JSON.stringify([
      flow.kind,
      flow.node,
      Math.floor(flow.timeMs),
      flow.source,
      flow.destination,
      flow.port,
      flow.direction,
      flow.summary,
    ]);
    if (seen.has(key)) return false;
    seen.add(key);
    return true;
  });
}

async function connectionsOf(
  from: WhyEnd,
  to: WhyEnd | undefined,
  each: <T>(path: string) => Promise<{ node: string; value: T }[]>,
): Promise<WhyConnection[]> {
  const all: WhyConnection[] = [];
  for (const ip of from.addresses)
    for (const { node, value } of await each<ConnectionView[]>(`/v1/conntrack?ip=${encodeURIComponent(ip)}`))
      for (const row of value)
        if (row.source === ip && (to === undefined || to.addresses.includes(row.destination)))
          all.push({
            node,
            state: row.state,
            verdict: row.verdict,
            packets: row.packets,
            idleSeconds: row.idleSeconds,
            destinationPort: row.destinationPort,
          });
  return all;
}

async function policyOf(
  from: WhyEnd,
  to: WhyEnd,
  port: number | undefined,
  protocol: string,
  each: <T>(path: string) => Promise<{ node: string; value: T }[]>,
): Promise<WhyPolicy | undefined> {
  if (port === undefined || from.kind === 'unknown' || to.kind === 'unknown' || to.kind === 'name') return undefined;
  const query = new URLSearchParams({ from: from.text, to: to.text, port: `${port}/${protocol}` });
  const views = await each<PolicyWhyView>(`/v1/policy-why?${query}`).catch(() => []);
  const found = views.map(({ value }) => value).find((view) => view.notFound === undefined);
  const denied = found?.answers.find((answer) => !answer.allowed) ?? found?.answers[0];
  if (denied === undefined) return undefined;
  const end = denied.egress.allowed ? denied.ingress : denied.egress;
  return {
    allowed: denied.allowed,
    text: whyText(denied).trimEnd().split('\n'),
    ...(!denied.allowed && end.change !== undefined && { change: `To allow it: ${end.change}.` }),
  };
}
