// Policy at the size of a large cluster: ten thousand policies over ten thousand identities on one node with 250 pods; what a
// packet costs beside 1, 100 and 10 000 policies; and denials under ten thousand live connections.
import { parseArgs } from 'node:util';
import { podMac } from '../src/connect/endpoints/link-addresses.ts';
import { identityLabels, reservedIdentityRows } from '../src/core/identity.ts';
import { type AddressRow, type IdentityRow, type PolicyRow, policyKey } from '../src/core/rows.ts';
import { withNetns } from '../src/kernel/netns.ts';
import { readRing } from '../src/kernel/ring-buffer.ts';
import { testRun } from '../src/kernel/test-run.ts';
import { createPolicyCompiler } from '../src/secure/policy/compile.ts';
import type { PolicyModel } from '../src/secure/policy/evaluate.ts';
import { modelChanges } from '../src/secure/policy/model-changes.ts';
import type { PolicyChanges } from '../src/secure/policy/policy-delta.ts';
import { inNamespace } from '../src/secure/policy/policy-reader.ts';
import { createBed } from '../test/bed/bed.ts';
import { tcpPacket } from '../test/bed/packet.ts';
import { type Measure, median, printReport, quantile } from './report.ts';

const { values: options } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    policies: { type: 'string', default: '10000' },
    identities: { type: 'string', default: '10000' },
    pods: { type: 'string', default: '250' },
  },
});
const policyCount = Number(options.policies);
const identityCount = Number(options.identities);
const localPods = Number(options.pods);
const peersPerPolicy = 10;
const rounds = 200;
/** What a row of the policy maps takes in the kernel: key, value and the hash's or trie's own. */
const bytesPerPeer = 64;
const bytesPerPort = 72;
const mib = 2 ** 20;

const within = (measure: string, unit: string, value: number, goal: number, rival?: number): Measure => ({
  measure,
  unit,
  median: value,
  goal,
  ...(rival !== undefined && { rival }),
  met: value < goal ? 'yes' : 'no',
});

function identityRow(i: number): IdentityRow {
  const labels = { app: `app-${i % 100}`, team: `team-${Math.floor(i / 100)}` };
  return { id: 300 + i, labels: identityLabels({ namespace: 'bench', serviceAccount: 'default', labels }) };
}

/** Every policy selects the pods of one local identity and lets in ten others on a port of its own. */
function makePolicy(number: number, port = 1024 + (number % 60_000)): PolicyRow {
  const labels = (i: number) => ({ app: `app-${i % 100}`, team: `team-${Math.floor(i / 100)}` });
  const selector = (i: number) => inNamespace({ matchLabels: labels(i), matchExpressions: [] }, 'bench');
  const peers = Array.from({ length: peersPerPolicy }, (_, i) => ({
    kind: 'endpoints' as const,
    selector: selector((number * 7919 + i * 104_729) % identityCount),
  }));
  return {
    key: policyKey('CiliumNetworkPolicy', 'bench', `policy-${number}`),
    kind: 'CiliumNetworkPolicy',
    namespace: 'bench',
    name: `policy-${number}`,
    tier: 'normal',
    priority: 0,
    staged: false,
    subject: { kind: 'endpoints', selector: selector(number % localPods) },
    isolates: { ingress: true, egress: false },
    ingress: [
      {
        index: 0,
        list: 'ingress',
        action: 'allow',
        peers,
        ports: [{ kind: 'range', protocol: 6, first: port, last: port }],
      },
    ],
    egress: [],
  };
}

function makeModel(): PolicyModel {
  const addresses = Array.from({ length: identityCount }, (_, i): AddressRow => {
    const endpointId = i < localPods ? i + 1 : 0;
    const address = `10.${16 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`;
    return { address, identity: 300 + i, kind: 'pod', namedPorts: [], ifindex: endpointId, endpointId };
  });
  return {
    identities: [...reservedIdentityRows(), ...Array.from({ length: identityCount }, (_, i) => identityRow(i))],
    namespaces: [{ name: 'bench', labels: {} }],
    addresses,
    prefixes: [],
    policies: Array.from({ length: policyCount }, (_, i) => makePolicy(i)),
  };
}

const change = (table: keyof PolicyChanges, key: string | number, after?: unknown): PolicyChanges => ({
  [table]: { resync: false, changes: [{ key, ...(after !== undefined && { after }), revision: 1 }] },
});

function times(run: (round: number) => void): { p50: number; p99: number } {
  const taken: number[] = [];
  for (let i = 0; i < rounds; i++) {
    const begin = performance.now();
    run(i);
    taken.push(performance.now() - begin);
  }
  taken.sort((a, b) => a - b);
  return { p50: quantile(taken, 0.5), p99: quantile(taken, 0.99) };
}

function compileMeasures(): Measure[] {
  const model = makeModel();
  const changes = modelChanges(model);
  createPolicyCompiler().update(modelChanges({ ...model, policies: model.policies.slice(0, 500) }));
  const cpuBefore = process.cpuUsage();
  const begin = performance.now();
  const compiler = createPolicyCompiler();
  compiler.update(changes);
  const allMs = performance.now() - begin;
  const cpu = process.cpuUsage(cpuBefore);
  const cpuMs = (cpu.user + cpu.system) / 1000;
  const peers = [...compiler.peers()].length;
  const ports = [...compiler.ports()].length;
  const pairs = policyCount * peersPerPolicy;
  const changed = times((i) => {
    const row = makePolicy(i, 61_000 + i);
    compiler.update(change('policies', row.key, row));
  });
  const identity = times((i) => {
    compiler.update(change('identities', 60_000 + i, { ...identityRow(i % identityCount), id: 60_000 + i }));
  });
  const size = `${policyCount} policies over ${identityCount} identities, ${localPods} pods here`;
  return [
    within(`${size}: full computation`, 'ms', allMs, 2_000),
    { measure: `${size}: CPU for it`, unit: 'ms', median: cpuMs },
    within(`${size}: memory of the process`, 'MiB', process.memoryUsage().rss / mib, 400),
    { measure: 'rows of peers', unit: '', median: peers },
    { measure: 'rows of ports', unit: '', median: ports },
    {
      measure: 'memory of the maps for them',
      unit: 'MiB',
      median: (peers * bytesPerPeer + ports * bytesPerPort) / mib,
    },
    {
      measure: 'one entry for each peer and port of each pod would take',
      unit: 'MiB',
      median: (pairs * bytesPerPort) / mib,
    },
    within('one policy changed, p50', 'ms', changed.p50, 3, 16),
    within('one policy changed, p99', 'ms', changed.p99, 10, 45),
    within('one new identity against all policies, p50', 'ms', identity.p50, 1),
    within('one new identity against all policies, p99', 'ms', identity.p99, 1),
  ];
}

/** Policies about the pod `b` that let in nobody else's packets: they only make the tables larger. */
const unrelated = (i: number): PolicyRow => ({
  ...makePolicy(i),
  namespace: 'default',
  key: policyKey('CiliumNetworkPolicy', 'default', `policy-${i}`),
  subject: { kind: 'endpoints', selector: inNamespace({ matchLabels: { app: 'b' }, matchExpressions: [] }, 'default') },
});

const letIn: PolicyRow = {
  ...unrelated(0),
  name: 'a-to-b',
  key: policyKey('CiliumNetworkPolicy', 'default', 'a-to-b'),
  ingress: [
    {
      index: 0,
      list: 'ingress',
      action: 'allow',
      peers: [
        { kind: 'endpoints', selector: inNamespace({ matchLabels: { app: 'a' }, matchExpressions: [] }, 'default') },
      ],
      ports: [{ kind: 'range', protocol: 6, first: 1, last: 65_535 }],
    },
  ],
};

/** Cuts all of a connection's first ports off, as one of many denials would. */
const cut = (from: number): PolicyRow => ({
  ...letIn,
  name: 'cut',
  key: policyKey('CiliumNetworkPolicy', 'default', 'cut'),
  isolates: { ingress: false, egress: false },
  ingress: [
    {
      ...letIn.ingress[0]!,
      list: 'ingressDeny',
      action: 'deny',
      ports: [{ kind: 'range', protocol: 6, first: from, last: from + 999 }],
    },
  ],
});

async function packetMeasures(): Promise<Measure[]> {
  const bed = await createBed({
    pods: [
      { name: 'a', node: 0 },
      { name: 'b', node: 0 },
    ],
    maxEntries: { ct4: 32_768 },
  });
  try {
    const node = bed.nodes[0]!;
    const [a, b] = [bed.pod('a'), bed.pod('b')];
    const programFd = node.datapath!.programFd('pod');
    const packet = (sourcePort: number, destinationPort: number, flag: 'SYN' | 'ACK'): Uint8Array =>
      tcpPacket({ from: a, to: b, sourceMac: podMac(a.ifindex), sourcePort, destinationPort, flags: [flag] });
    const run = (data: Uint8Array) =>
      withNetns(node.netnsFd, () => testRun(programFd, data, { ctxSkb: { ifindex: a.ifindex } }));
    const drain = () => readRing(node.datapath!.ring, () => {});
    const measures: Measure[] = [];
    let base = { established: 0, fresh: 0 };
    for (const count of [1, 100, policyCount]) {
      bed.setPolicies([letIn, ...Array.from({ length: count - 1 }, (_, i) => unrelated(i))]);
      const fresh: number[] = [];
      const established: number[] = [];
      for (let round = 0; round < 3; round++) {
        for (let port = 10_000; port < 14_000; port++) {
          fresh.push(run(packet(port, 80 + round, 'SYN')).durationNs);
          if (port % 1000 === 0) drain();
        }
        for (let i = 0; i < 8_000; i++)
          established.push(run(packet(10_000 + (i % 4_000), 80 + round, 'ACK')).durationNs);
      }
      const now = { established: median(established), fresh: median(fresh) };
      if (count === 1) base = now;
      const beside = (measure: string, value: number, one: number): Measure => ({
        measure: `${measure}, ${count} policies on the pod`,
        unit: 'ns',
        median: value,
        least: value / one,
        met: value <= one * 1.1 ? 'yes' : 'no',
      });
      measures.push(beside('established packet', now.established, base.established));
      measures.push(beside('new connection', now.fresh, base.fresh));
    }
    measures.push(...(await denials(bed, run, packet, drain)));
    return measures;
  } finally {
    bed.close();
  }
}

/** Ten thousand connections; again and again a thousand of them are denied: the next packet of each must be dropped. */
async function denials(
  bed: Awaited<ReturnType<typeof createBed>>,
  run: (data: Uint8Array) => { retval: number },
  packet: (sourcePort: number, destinationPort: number, flag: 'SYN' | 'ACK') => Uint8Array,
  drain: () => void,
): Promise<Measure[]> {
  const connections = 10_000;
  bed.setPolicies([letIn]);
  const portOf = (i: number): number => 2_000 + (i % connections);
  for (let i = 0; i < connections; i++) {
    run(packet(20_000 + (i >> 8), portOf(i), 'SYN'));
    if (i % 1000 === 0) drain();
  }
  const takes: number[] = [];
  let late = 0;
  for (let round = 0; round < 20; round++) {
    const from = 2_000 + ((round * 1_777) % 9_000);
    const begin = performance.now();
    bed.setPolicies([letIn, cut(from)]);
    takes.push(performance.now() - begin);
    for (let i = from - 2_000; i < from - 1_000; i++)
      if (run(packet(20_000 + (i >> 8), portOf(i), 'ACK')).retval !== 2) late++;
    drain();
    bed.setPolicies([letIn]);
  }
  return [
    within(
      'a denial under 10 000 connections: until the next packet of each is dropped, p99',
      'ms',
      quantile(
        takes.toSorted((one, other) => one - other),
        0.99,
      ),
      20,
    ),
    {
      measure: 'packets of denied connections that got through after that',
      unit: '',
      median: late,
      goal: 0,
      met: late === 0 ? 'yes' : 'no',
    },
  ];
}

const measures = [...compileMeasures(), ...(await packetMeasures())];
printReport('policy-scale', measures, options.json!);
