// Turns a list of flows into what the demonstration prints: who talked to whom, and which policies said yes or no.

/** The fields of a flow that are looked at here, as `weir observe -o json` prints them. */
export interface FlowLine {
  readonly node_name?: string;
  readonly time?: string;
  readonly flow?: {
    readonly verdict?: string;
    readonly time?: string;
    readonly drop_reason_desc?: string;
    readonly is_reply?: boolean | { readonly value?: boolean } | null;
    readonly IP?: { readonly source?: string; readonly destination?: string };
    readonly source?: FlowEnd;
    readonly destination?: FlowEnd;
    readonly l4?: Readonly<Record<string, { readonly destination_port?: number } | undefined>>;
    readonly egress_allowed_by?: readonly PolicyName[];
    readonly ingress_allowed_by?: readonly PolicyName[];
    readonly egress_denied_by?: readonly PolicyName[];
    readonly ingress_denied_by?: readonly PolicyName[];
    readonly extensions?: { readonly value?: { readonly source_process?: ProcessName } };
  };
}

interface FlowEnd {
  readonly namespace?: string;
  readonly pod_name?: string;
  readonly labels?: readonly string[];
}

interface ProcessName {
  readonly binary?: string;
  readonly arguments?: string;
}

interface PolicyName {
  readonly name?: string;
  readonly namespace?: string;
  readonly labels?: readonly string[];
}

const ruleLabel = 'weir:rule=';

/** All flows of one kind between two ends. */
export interface Connection {
  readonly from: string;
  readonly to: string;
  /** Such as `8080/TCP`. */
  readonly port: string;
  readonly denied: boolean;
  readonly reason: string;
  readonly families: readonly ('IPv4' | 'IPv6')[];
  readonly flows: number;
  readonly egressPolicies: readonly string[];
  readonly ingressPolicies: readonly string[];
  /** Programs that made it, with their arguments. */
  readonly processes: readonly string[];
}

/** The lines of `weir observe -o json`; a line that is no flow is left out. */
export function parseFlowLines(text: string): FlowLine[] {
  return text.split('\n').flatMap((line) => {
    try {
      const parsed = JSON.parse(line) as FlowLine;
      return parsed.flow === undefined ? [] : [parsed];
    } catch {
      return [];
    }
  });
}

/** Groups flows that pods began into connections, the denied ones last. Replies and the nodes' own flows are left out. */
export function summarize(lines: readonly FlowLine[]): Connection[] {
  const groups = new Map<string, Connection>();
  for (const { flow } of lines) {
    if (flow === undefined || !flow.source?.pod_name || isReply(flow.is_reply)) continue;
    if (flow.verdict !== 'FORWARDED' && flow.verdict !== 'DROPPED') continue;
    const denied = flow.verdict === 'DROPPED';
    const [protocol = '?', ports] = Object.entries(flow.l4 ?? {}).find(([, value]) => value !== undefined) ?? [];
    const port = ports?.destination_port === undefined ? protocol : `${ports.destination_port}/${protocol}`;
    const from = endName(flow.source, flow.IP?.source);
    const to = endName(flow.destination, flow.IP?.destination);
    const key = [from, to, port, denied].join('|');
    const before = groups.get(key);
    groups.set(key, {
      from,
      to,
      port,
      denied,
      reason: before?.reason || (denied ? (flow.drop_reason_desc ?? 'DROPPED') : ''),
      families: union(before?.families, [flow.IP?.source?.includes(':') ? 'IPv6' : 'IPv4']),
      flows: (before?.flows ?? 0) + 1,
      egressPolicies: union(
        before?.egressPolicies,
        policyNames(denied ? flow.egress_denied_by : flow.egress_allowed_by),
      ),
      ingressPolicies: union(
        before?.ingressPolicies,
        policyNames(denied ? flow.ingress_denied_by : flow.ingress_allowed_by),
      ),
      processes: union(before?.processes, processNames(flow.extensions?.value?.source_process)),
    });
  }
  const order = (each: Connection) => `${Number(each.denied)} ${each.from} ${each.to} ${each.port}`;
  return [...groups.values()].sort((a, b) => (order(a) < order(b) ? -1 : 1));
}

function isReply(value: boolean | { readonly value?: boolean } | null | undefined): boolean {
  return value === true || (typeof value === 'object' && value?.value === true);
}

function endName(end: FlowEnd | undefined, address = '?'): string {
  if (end?.pod_name) return `${end.namespace}/${end.pod_name}`;
  const reserved = end?.labels?.find((label) => label.startsWith('reserved:'))?.slice('reserved:'.length);
  return reserved === undefined ? address : `${reserved} ${address}`;
}

/** `namespace/name`, and the rule such as `egress[0]` where one of its rules decided. */
function policyNames(policies: readonly PolicyName[] | undefined): string[] {
  return (policies ?? []).map((policy) => {
    const rule = policy.labels?.find((label) => label.startsWith(ruleLabel))?.slice(ruleLabel.length);
    const name = policy.namespace ? `${policy.namespace}/${policy.name}` : String(policy.name);
    return rule === undefined ? name : `${name} ${rule}`;
  });
}

function processNames(process: ProcessName | undefined): string[] {
  return process?.binary === undefined ? [] : [`${process.binary} ${process.arguments ?? ''}`.trimEnd()];
}

function union<T>(before: readonly T[] | undefined, more: readonly T[]): T[] {
  return [...new Set([...(before ?? []), ...more])];
}

/** One connection in a few lines: the ends, the process that made it, and why it was allowed or denied. */
export function describe(connection: Connection): string {
  const { from, to, port, families, flows } = connection;
  const made = connection.processes.length === 0 ? '' : `      made by ${connection.processes.join(', ')}\n`;
  return `  ${from} -> ${to} ${port} (${families.join(', ')}; ${flows} ${flows === 1 ? 'flow' : 'flows'})\n${made}      ${why(connection)}\n`;
}

function why(connection: Connection): string {
  const sides = [
    { word: 'egress', policies: connection.egressPolicies },
    { word: 'ingress', policies: connection.ingressPolicies },
  ].filter((side) => side.policies.length > 0);
  if (!connection.denied) {
    if (sides.length === 0) return 'allowed: no policy selects either end';
    return `allowed by ${sides.map((side) => side.policies.join(', ')).join(' and ')}`;
  }
  if (sides.length === 0) return `dropped: ${connection.reason}`;
  // A NetworkPolicy only ever allows: what denies is that others isolate the pod and none of their rules matched.
  const isolated = sides.map((side) => `${side.word} is closed by ${side.policies.join(', ')}`);
  return `denied: ${isolated.join(' and ')}, and none of their rules allows it`;
}
