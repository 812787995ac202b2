// How long the pod program takes for one packet, by test-run with fresh packets: established to a local and to a remote
// pod, and a new connection with its event; the median over several loads of the program, the families in turns. Beside
// it an empty program, which is the cost of the measurement itself.
import { parseArgs } from 'node:util';
import { podMac } from '../src/connect/endpoints/link-addresses.ts';
import { ProgType } from '../src/kernel/bpf-syscall.ts';
import { closeFd } from '../src/kernel/libc.ts';
import { withNetns } from '../src/kernel/netns.ts';
import { loadInstructions, returnProgram } from '../src/kernel/raw-program.ts';
import { readRing } from '../src/kernel/ring-buffer.ts';
import { testRun } from '../src/kernel/test-run.ts';
import { readPolicies } from '../src/secure/policy/read-policies.ts';
import { createBed } from '../test/bed/bed.ts';
import { tcpPacket } from '../test/bed/packet.ts';
import { type Measure, median, printReport, quantile } from './report.ts';

const { values: options } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    packets: { type: 'string', default: '8000' },
    loads: { type: 'string', default: '6' },
  },
});
const packets = Number(options.packets);
const goals: Record<string, number> = {
  'established, local pod': 180,
  'established, remote pod': 180,
  'new connection, local pod': 700,
  'new connection, remote pod': 700,
};
const rival: Record<string, number> = { 'established, local pod': 743, 'established, remote pod': 491 };

const policies = readPolicies([
  {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name: 'both', namespace: 'default' },
    spec: {
      podSelector: {},
      policyTypes: ['Ingress', 'Egress'],
      ingress: [{ from: [{ podSelector: { matchLabels: { app: 'a' } } }], ports: [{ port: 5001 }] }],
      egress: [{ to: [{ podSelector: {} }], ports: [{ port: 5001 }] }],
    },
  },
]);

interface Case {
  readonly name: string;
  /** One for each load of the program: what a packet takes, without the measurement's own cost. */
  readonly medianNs: number[];
  readonly p10Ns: number[];
  readonly p90Ns: number[];
}
const cases = new Map<string, Case>();
const empties: number[] = [];

/** One load of the program: where its maps come to lie makes more of a difference than what is measured. */
async function measureLoad(turned: boolean): Promise<void> {
  const bed = await createBed({
    pods: [
      { name: 'a', node: 0 },
      { name: 'b', node: 0 },
      { name: 'c', node: 1 },
    ],
  });
  const empty = loadInstructions({ type: ProgType.schedCls, instructions: returnProgram(7) });
  try {
    bed.setPolicies(policies);
    const node = bed.nodes[0]!;
    const pod = bed.pod('a');
    const programFd = node.datapath!.programFd('pod');
    const measure = (name: string, fd: number, packet: (i: number) => Uint8Array) => {
      const times: number[] = [];
      withNetns(node.netnsFd, () => {
        for (let i = 0; i < packets; i++) {
          const { retval, durationNs } = testRun(fd, packet(i), { ctxSkb: { ifindex: pod.ifindex } });
          if (retval !== 7) throw new Error(`${name}: the program answered ${retval} instead of 7 to packet ${i}`);
          times.push(durationNs);
          if (i % 1000 === 0) readRing(node.datapath!.ring, () => {});
        }
      });
      return times.sort((a, b) => a - b);
    };
    const make = (target: string, six: boolean, sourcePort: number, flags: ('SYN' | 'ACK')[]) =>
      tcpPacket({
        from: pod,
        to: bed.pod(target),
        six,
        sourceMac: podMac(pod.ifindex),
        sourcePort,
        destinationPort: 5001,
        flags,
      });
    const base = quantile(
      measure('empty program', empty, () => make('b', false, 1, ['ACK'])),
      0.5,
    );
    empties.push(base);
    const families = turned ? [true, false] : [false, true];
    for (const [where, target] of [
      ['local', 'b'],
      ['remote', 'c'],
    ] as const) {
      for (const six of families) {
        // Opens the connection; its repetitions are established.
        withNetns(node.netnsFd, () =>
          testRun(programFd, make(target, six, 999, ['SYN']), { ctxSkb: { ifindex: pod.ifindex } }),
        );
        for (const [kind, packet] of [
          [`established, ${where} pod`, () => make(target, six, 999, ['ACK'])],
          [`new connection, ${where} pod`, (i: number) => make(target, six, 1024 + i, ['SYN'])],
        ] as const) {
          const name = `${kind}, IPv${six ? 6 : 4}`;
          const times = measure(name, programFd, packet);
          const found = cases.get(name) ?? { name, medianNs: [], p10Ns: [], p90Ns: [] };
          cases.set(name, found);
          found.medianNs.push(quantile(times, 0.5) - base);
          found.p10Ns.push(quantile(times, 0.1) - base);
          found.p90Ns.push(quantile(times, 0.9) - base);
        }
      }
    }
  } finally {
    closeFd(empty);
    bed.close();
  }
}

for (let load = 0; load < Number(options.loads); load++) await measureLoad(load % 2 === 1);
const rows: Measure[] = [...cases.values()]
  .toSorted((a, b) => a.name.slice(-1).localeCompare(b.name.slice(-1)))
  .map(({ name, medianNs, p10Ns, p90Ns }) => {
    const kind = name.slice(0, name.lastIndexOf(','));
    const value = median(medianNs);
    return {
      measure: name,
      unit: 'ns',
      median: value,
      least: Math.min(...medianNs),
      p10: median(p10Ns),
      p90: median(p90Ns),
      goal: goals[kind],
      rival: rival[kind],
      met: value <= goals[kind]! ? 'yes' : 'no',
    };
  });
rows.push({ measure: 'empty program (subtracted above)', unit: 'ns', median: median(empties) });
printReport('packets', rows, options.json!);
