// Which layer broke: name, policy, route, service, answer, application. A pure function of the evidence: each layer looks for
// what only it can have left behind, the first one in the order of a connection's life that finds something answers, and what
// came after a failure and worked counts more than the failure.
import { dropReasons } from '../../kernel/datapath.gen.ts';
import type { WhyAnswer, WhyEnd, WhyEvidence, WhyFlow, WhyLayer } from './evidence.ts';

const maxEvidence = 5;
/** A connection that has not been answered for so long is not going to be. */
const silenceMs = 900;
/** A question that has not been answered for so long is not going to be. */
const questionMs = 1_500;

/** What broke, the most likely cause first. At least one answer. */
export function diagnose(evidence: WhyEvidence): WhyAnswer[] {
  const { kept, overcome } = withoutOvercome(evidence.flows);
  const now = { ...evidence, flows: kept };
  const answers = [source, names, drops, service, silence, endings, packetSize, table, policyOnly, nodes].flatMap(
    (look) => look(now),
  );
  // What is wrong with nodes explains nothing where connections work.
  const worked = kept.filter(succeeded).at(-1);
  if (worked !== undefined && answers.every((each) => each.layer === 'node'))
    return [works(evidence, worked, overcome), ...answers];
  return answers.length > 0 ? answers : [nothingTried(evidence)];
}

/** Failures that were followed by a success of the same kind are over. */
function withoutOvercome(flows: readonly WhyFlow[]): { kept: WhyFlow[]; overcome: number } {
  const lastSuccess = new Map<string, number>();
  const keys = (flow: WhyFlow) => [
    `${flow.destination} ${flow.port}`,
    ...(flow.service === undefined ? [] : [`service ${flow.service}`]),
  ];
  for (const flow of flows.filter(succeeded)) for (const key of keys(flow)) lastSuccess.set(key, flow.timeMs);
  const latest = Math.max(0, ...lastSuccess.values());
  const isOvercome = (flow: WhyFlow) => {
    if (!isFailure(flow)) return false;
    // It says nothing of whose connection it was: what works since is taken to be it.
    if (flow.kind === 'icmp error') return flow.timeMs < latest;
    // Of a service with several backends one may still be broken.
    const [own, ofService] = keys(flow);
    const key = flow.reason === 'SERVICE_BACKEND_NOT_FOUND' ? (ofService ?? own!) : own!;
    return (lastSuccess.get(key) ?? 0) > flow.timeMs;
  };
  const kept = flows.filter((flow) => !isOvercome(flow));
  return { kept, overcome: flows.length - kept.length };
}

function answer(layer: WhyLayer, cause: string, says: string, what: string, flows: readonly WhyFlow[] = []): WhyAnswer {
  return { layer, cause, says, do: what, evidence: flows.slice(-maxEvidence).map(line) };
}

/** A flow as evidence: when, where, what. */
export function line(flow: WhyFlow): string {
  const time = new Date(flow.timeMs).toISOString().slice(11, 23);
  const who = flow.process === undefined ? '' : ` (${flow.process})`;
  return `${time} ${flow.node}: ${flow.source} -> ${flow.destination}${flow.port > 0 ? `:${flow.port}` : ''}${who} ${flow.reason ?? flow.summary}`;
}

const nameOf = (end: WhyEnd | undefined) => end?.text ?? 'anybody';

function source({ from }: WhyEvidence): WhyAnswer[] {
  if (from.kind === 'unknown')
    return [
      answer(
        'source',
        'source-unknown',
        `no node has a pod ${from.text}`,
        'Look with `weir endpoint list`: is it running, and on a node with an agent?',
      ),
    ];
  if (from.kind === 'pod' && from.state !== undefined && from.state !== 'ready')
    return [
      answer(
        'source',
        'source-not-ready',
        `the network of ${from.text} is not ready: ${from.state}`,
        `See \`weir endpoint get ${from.namespace}/${from.name}\` and the agent's log on ${from.node}.`,
      ),
    ];
  return [];
}

/** What came of questions for names. */
function names({ flows, to, nowMs, from }: WhyEvidence): WhyAnswer[] {
  const wanted = wantedNames(to, from);
  const mine = flows.filter((flow) => flow.query !== undefined && (wanted === undefined || wanted(flow.query)));
  const resolved = new Set(
    mine
      .filter((flow) => flow.kind === 'answer' && (flow.answers ?? 0) > 0)
      .flatMap((flow) => readings(flow.query!, from)),
  );
  // The node's own domains are tried behind names as well: what begins with a name that has an address is one of them.
  const isResolved = (query: string) =>
    readings(query, from).some((each) => resolved.has(each)) ||
    [...resolved].some((name) => query.startsWith(`${name}.`));
  const open = mine.filter((flow) => !isResolved(flow.query!));
  const answers: WhyAnswer[] = [];
  for (const [name, own] of Map.groupBy(open, (flow) => to?.text ?? readings(flow.query!, from)[0]!)) {
    const got = own.filter((flow) => flow.kind === 'answer');
    const codes = new Set(got.map((flow) => flow.rcode));
    const server = (got.at(-1) ?? own.at(-1))!;
    const at = server.kind === 'answer' ? server.source : server.destination;
    const failing = [...codes].find((code) => code !== 'NOERROR' && code !== 'NXDOMAIN');
    const silent = own.filter((flow) => flow.kind === 'question' && nowMs - flow.timeMs > questionMs);
    if (failing !== undefined)
      answers.push(
        answer(
          'name',
          'name-server-fails',
          `the name server ${at} answers ${failing} for ${name}`,
          'Look at the name server’s own log and at who it asks.',
          own,
        ),
      );
    else if (codes.has('NXDOMAIN'))
      answers.push(
        answer(
          'name',
          'name-not-found',
          `the name ${name} does not exist: ${at} says NXDOMAIN`,
          'Is it spelled right, and in the right namespace? `weir service list` shows what there is.',
          got,
        ),
      );
    else if (got.length > 0)
      answers.push(
        answer(
          'name',
          'name-without-address',
          `the name ${name} has no address: ${at} answers without records`,
          'A headless service without ready pods answers like this: are they ready?',
          got,
        ),
      );
    else if (silent.length > 0)
      answers.push(
        answer(
          'name',
          'name-server-silent',
          `the name server ${at} does not answer questions for ${name}`,
          'Is it running? `weir observe --port 53 --verdict dropped` shows whether policy keeps questions from it.',
          silent,
        ),
      );
  }
  return answers;
}

/** Which questions are about what was asked for; undefined: all of them. */
function wantedNames(to: WhyEnd | undefined, from: WhyEnd): ((query: string) => boolean) | undefined {
  if (to === undefined) return undefined;
  const texts =
    to.kind === 'service'
      ? [`${to.name}.${to.namespace}.`, ...(to.namespace === from.namespace ? [`${to.name}.`] : [])]
      : to.kind === 'name'
        ? [`${to.text.replace(/\.$/, '')}.`]
        : [];
  return (query) => texts.some((text) => query === text || query.startsWith(text));
}

/** What may have been asked for, the shortest first: a resolver tries the domains of the cluster behind a name. */
function readings(query: string, from: WhyEnd): string[] {
  const name = query.replace(/\.$/, '');
  const domains = [`.${from.namespace}.svc.cluster.local`, '.svc.cluster.local', '.cluster.local'];
  return [name, ...domains.filter((each) => name.endsWith(each)).map((each) => name.slice(0, -each.length))].sort(
    (a, b) => a.length - b.length,
  );
}

const routeReasons = new Set([
  'FIB_LOOKUP_FAILED',
  'UNKNOWN_L3_TARGET_ADDRESS',
  'STALE_OR_UNROUTABLE_IP',
  'TTL_EXCEEDED',
]);

function drops({ flows, to, policy }: WhyEvidence): WhyAnswer[] {
  const answers: WhyAnswer[] = [];
  const byReason = Map.groupBy(
    flows.filter((flow) => flow.kind === 'dropped'),
    (flow) => `${flow.reason} ${flow.service ?? flow.destination} ${flow.port}`,
  );
  for (const dropped of byReason.values()) {
    const last = dropped.at(-1)!;
    const reason = last.reason!;
    const known = dropReasons.find((each) => each.name === reason);
    if (reason === 'POLICY_DENIED') {
      const toNames = last.port === 53;
      const by = [...new Set(dropped.flatMap((flow) => flow.policies))];
      const where = last.direction === 'ingress' ? `into ${last.destination}` : `out of ${last.source}`;
      answers.push({
        ...answer(
          toNames ? 'name' : 'policy',
          toNames ? 'name-server-denied' : last.direction === 'ingress' ? 'policy-ingress' : 'policy-egress',
          `${toNames ? 'questions to the name server are' : 'the connection is'} denied by policy, on the way ${where} port ${last.port}` +
            (by.length > 0 ? `: ${by.join(', ')}` : ''),
          policy?.change ??
            `\`weir policy why ${last.source} ${last.destination} --port ${last.port}/${last.protocol.toLowerCase()}\` shows the rules that nearly match.`,
          dropped,
        ),
      });
    } else if (reason === 'SERVICE_BACKEND_NOT_FOUND') {
      const name = last.service ?? nameOf(to);
      answers.push(
        answer(
          'service',
          'service-without-backend',
          `the service ${name} has no backend that serves`,
          `\`weir service get ${name}\`: are its pods ready, does its selector match them, and do the ports fit?`,
          dropped,
        ),
      );
    } else if (reason === 'DENIED_BY_LB_SRC_RANGE_CHECK')
      answers.push(
        answer(
          'service',
          'service-source-range',
          `the source ranges of the service ${last.service ?? ''} do not let ${last.source} in`,
          'Add its block to loadBalancerSourceRanges, or accept the denial.',
          dropped,
        ),
      );
    else if (routeReasons.has(reason))
      answers.push(
        answer(
          'route',
          reason === 'STALE_OR_UNROUTABLE_IP' ? 'no-such-pod' : 'no-route',
          `packets to ${last.destination} have no way there: ${known?.meaning ?? reason}`,
          `${capital(known?.action ?? '')}.`,
          dropped,
        ),
      );
    else if (reason === 'CT_MAP_INSERTION_FAILED' || reason === 'NO_MAPPING_FOR_NAT_MASQUERADE')
      answers.push(
        answer(
          'node',
          'table-full',
          `${last.node} has no room for another connection: ${known?.meaning ?? reason}`,
          `${capital(known?.action ?? '')}.`,
          dropped,
        ),
      );
    else
      answers.push(
        answer(
          'node',
          `dropped-${reason.toLowerCase().replaceAll('_', '-')}`,
          `packets are dropped: ${known?.meaning ?? reason}`,
          `${capital(known?.action ?? '')}.`,
          dropped,
        ),
      );
  }
  return answers;
}

function service({ to, flows }: WhyEvidence): WhyAnswer[] {
  if (to?.kind === 'unknown')
    return [
      answer(
        'service',
        'destination-unknown',
        `nothing is known of ${to.text}: it is no pod, no service and no name that was asked for`,
        'Write NAMESPACE/POD, NAMESPACE/SERVICE, an address or a name.',
      ),
    ];
  if (to?.kind !== 'service' || (to.serving ?? 0) > 0) return [];
  if (flows.some((flow) => flow.reason === 'SERVICE_BACKEND_NOT_FOUND')) return [];
  return [
    answer(
      'service',
      'service-without-backend',
      `the service ${to.text} has ${to.backends ?? 0} backends and none serves`,
      `\`weir service get ${to.text}\`: are its pods ready, does its selector match them, and do the ports fit?`,
    ),
  ];
}

/** Connections that nobody answers, over or still going on. */
function silence({ flows, connections, to, nowMs, sinceMs }: WhyEvidence): WhyAnswer[] {
  const over = flows.filter((flow) => flow.kind === 'ended' && flow.endCause === 'no answer');
  const open = connections.filter(
    (each) =>
      each.state === 'opening' &&
      each.verdict === 'forwarded' &&
      each.packets[1] === 0 &&
      each.idleSeconds * 1000 < nowMs - sinceMs,
  );
  const begun = flows.filter(
    (flow) => flow.kind === 'begun' && flow.protocol === 'TCP' && nowMs - flow.timeMs > silenceMs,
  );
  const answered = (flow: WhyFlow) =>
    flows.some(
      (later) =>
        later.timeMs >= flow.timeMs &&
        later.destination === flow.destination &&
        later.port === flow.port &&
        (later.received ?? 0) > 0,
    );
  const hanging = open.length > 0 ? begun.filter((flow) => !answered(flow)) : [];
  if (over.length === 0 && hanging.length === 0) return [];
  const last = [...over, ...hanging].at(-1)!;
  const arrived = new Set(begun.filter((flow) => flow.direction === 'ingress').map((flow) => flow.node));
  const where =
    arrived.size > 0 ? `packets reach ${last.destination} on ${[...arrived].join(', ')}` : `packets leave ${last.node}`;
  return [
    answer(
      'answer',
      'no-answer',
      `${last.destination}:${last.port} does not answer: ${where}, and nothing comes back`,
      to?.kind === 'pod'
        ? 'A firewall of the pod’s own, or a process that hangs: look inside the pod.'
        : 'Is the address right and the machine up? What is between here and there may drop it.',
      [...over, ...hanging],
    ),
  ];
}

function endings({ flows }: WhyEvidence): WhyAnswer[] {
  const answers: WhyAnswer[] = [];
  const ended = flows.filter((flow) => flow.kind === 'ended');
  const refused = ended.filter((flow) => flow.endCause === 'refused');
  if (refused.length > 0) {
    const last = refused.at(-1)!;
    answers.push(
      answer(
        'application',
        'refused',
        `${last.destination} refuses connections to port ${last.port}: nobody listens there`,
        'Is the process running, and does it listen on this port and on all addresses, not only on 127.0.0.1?',
        refused,
      ),
    );
  }
  const reset = ended.filter((flow) => flow.endCause === 'reset');
  if (reset.length > 0) {
    const last = reset.at(-1)!;
    const by = last.closedBy === 'client' ? last.source : last.destination;
    answers.push(
      answer(
        'application',
        last.closedBy === 'client' ? 'reset-by-client' : 'reset-by-server',
        `${by} resets the connection after ${last.received ?? 0} packets of answer`,
        `Look at the log of ${by}: it ended while the other side was not done.`,
        reset,
      ),
    );
  }
  return answers;
}

function packetSize({ flows }: WhyEvidence): WhyAnswer[] {
  const errors = flows.filter((flow) => flow.kind === 'icmp error');
  const large = errors.filter((flow) => /too ?big|fragmentation/i.test(flow.icmp ?? ''));
  const answers: WhyAnswer[] = [];
  if (large.length > 0)
    answers.push(
      answer(
        'packet size',
        'mtu',
        `packets are too large for the way: ${large.at(-1)!.source} says ${large.at(-1)!.icmp}`,
        'Lower the MTU of the pods (--mtu), or raise it on the way. Who ignores these messages hangs.',
        large,
      ),
    );
  const other = errors.filter((flow) => !large.includes(flow));
  if (other.length > 0)
    answers.push(
      answer(
        'route',
        'unreachable',
        `${other.at(-1)!.source} says: ${other.at(-1)!.icmp}`,
        'Look at the machine that says so, and at its routes and rules.',
        other,
      ),
    );
  return answers;
}

function table({ nodes: all }: WhyEvidence): WhyAnswer[] {
  return all
    .filter((each) => each.problems.length > 0)
    .map((each) => ({
      ...answer(
        'node',
        'node-problem',
        `${each.node} is not well: ${each.problems[0]}`,
        `See \`weir status --node ${each.node}\`.`,
      ),
      evidence: each.problems.slice(0, maxEvidence),
    }));
}

/** Nothing was tried, and it would be denied. */
function policyOnly({ policy, flows, from, to }: WhyEvidence): WhyAnswer[] {
  if (policy === undefined || policy.allowed || flows.some((flow) => flow.kind === 'dropped')) return [];
  return [
    {
      ...answer(
        'policy',
        'policy-would-deny',
        `policy would deny ${nameOf(from)} -> ${nameOf(to)}; nothing tried it in the time that was looked at`,
        policy.change ?? 'See `weir policy why`.',
      ),
      evidence: policy.text.slice(0, maxEvidence),
    },
  ];
}

function nodes({ nodes: all, from }: WhyEvidence): WhyAnswer[] {
  const silent = all.filter((each) => !each.reachable);
  if (silent.length === 0) return [];
  const mine = silent.find((each) => each.node === from.node);
  return [
    answer(
      'node',
      'agent-silent',
      `the agent of ${(mine ?? silent[0]!).node} does not answer: what its node saw is missing here`,
      `See the agent's log on ${(mine ?? silent[0]!).node}, and whether its flow socket is there; forwarding goes on without it.`,
    ),
  ];
}

/** A connection that got answers and did not end badly. */
function succeeded(flow: WhyFlow): boolean {
  if (flow.kind === 'goes on') return (flow.received ?? 0) > 0;
  return flow.kind === 'ended' && flow.endCause === 'closed' && (flow.received ?? 0) > 1;
}

function isFailure(flow: WhyFlow): boolean {
  if (flow.kind === 'dropped' || flow.kind === 'icmp error') return true;
  return flow.kind === 'ended' && flow.endCause !== 'closed' && flow.endCause !== 'expired';
}

function works({ from, to }: WhyEvidence, last: WhyFlow, overcome: number): WhyAnswer {
  const rtt =
    last.rttUs === undefined
      ? ''
      : `, round trip ${last.rttUs < 1000 ? `${last.rttUs} µs` : `${(last.rttUs / 1000).toFixed(1)} ms`}`;
  return answer(
    'works',
    'works',
    `${nameOf(from)} -> ${to?.text ?? last.destination} works: the last connection, to ${last.destination}:${last.port}, was answered${rtt}`,
    overcome > 0
      ? `Before it ${overcome} attempts failed: if they come back, look again with --since 1m.`
      : 'If an application complains nevertheless, it is the application: look at its log.',
    [last],
  );
}

function nothingTried({ from, to, sinceMs, nowMs, policy }: WhyEvidence): WhyAnswer {
  const minutes = Math.max(1, Math.round((nowMs - sinceMs) / 60_000));
  return answer(
    'nothing tried',
    'never-tried',
    `${nameOf(from)} sent nothing to ${nameOf(to)} in the last ${minutes} min${policy?.allowed ? ', and policy would allow it' : ''}`,
    'Is the program running and asked to connect? `weir ps` shows what runs and whom it talks to.',
  );
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
