// How long the pod program takes for one packet, by test-run with fresh packets: established to a local and to a remote
// pod, and a new connection with its event. Beside it an empty program, which is the cost of the measurement itself.
import { parseArgs } from 'node:util';
import { podMac } from '../src/connect/endpoints/pod-interface.ts';
import { ProgType } from '../src/kernel/bpf-syscall.ts';
import { withNetns } from '../src/kernel/netns.ts';
import { loadInstructions, returnProgram } from '../src/kernel/raw-program.ts';
import { readRing } from '../src/kernel/ring-buffer.ts';
import { testRun } from '../src/kernel/test-run.ts';
import { parseNetworkPolicy } from '../src/secure/policy/parse-network-policy.ts';
import { createBed } from '../test/bed/bed.ts';
import { tcpPacket } from '../test/bed/packet.ts';
import { printReport, quantile } from './report.ts';

const { values: options } = parseArgs({
  options: { json: { type: 'boolean', default: false }, packets: { type: 'string', default: '20000' } },
});
const packets = Number(options.packets);
const goals: Record<string, number> = {
  'established, local pod': 180,
  'established, remote pod': 180,
  'new connection, local pod': 700,
  'new connection, remote pod': 700,
};
const rival: Record<string, number> = { 'established, local pod': 743, 'established, remote pod': 491 };

const policy = parseNetworkPolicy({
  apiVersion: 'networking.k8s.io/v1',
  kind: 'NetworkPolicy',
  metadata: { name: 'both', namespace: 'default' },
  spec: {
    podSelector: {},
    policyTypes: ['Ingress', 'Egress'],
    ingress: [{ from: [{ podSelector: { matchLabels: { app: 'a' } } }], ports: [{ port: 5001 }] }],
    egress: [{ to: [{ podSelector: {} }], ports: [{ port: 5001 }] }],
  },
}).row!;

const bed = await createBed({
  pods: [
    { name: 'a', node: 0 },
    { name: 'b', node: 0 },
    { name: 'c', node: 1 },
  ],
});
bed.setPolicies([policy]);
const empty = loadInstructions({ type: ProgType.schedCls, instructions: returnProgram(7) });
const rows = [];
try {
  const node = bed.nodes[0]!;
  const pod = bed.pod('a');
  const programFd = node.datapath!.programFd('pod');
  const measure = (name: string, fd: number, packet: (i: number) => Uint8Array, expected: number) => {
    const times: number[] = [];
    withNetns(node.netnsFd, () => {
      for (let i = 0; i < packets; i++) {
        const { retval, durationNs } = testRun(fd, packet(i), { ctxSkb: { ifindex: pod.ifindex } });
        if (retval !== expected)
          throw new Error(`${name}: the program answered ${retval} instead of ${expected} to packet ${i}`);
        times.push(durationNs);
        if (i % 1000 === 0) readRing(node.datapath!.ring, () => {});
      }
    });
    return times.sort((a, b) => a - b);
  };
  const base = quantile(
    measure(
      'empty program',
      empty,
      () =>
        tcpPacket({
          from: pod,
          to: bed.pod('b'),
          sourceMac: podMac(pod.ifindex),
          sourcePort: 1,
          destinationPort: 5001,
          flags: ['ACK'],
        }),
      7,
    ),
    0.5,
  );
  for (const six of [false, true]) {
    for (const [where, target] of [
      ['local', 'b'],
      ['remote', 'c'],
    ] as const) {
      const make = (sourcePort: number, flags: ('SYN' | 'ACK')[]) =>
        tcpPacket({
          from: pod,
          to: bed.pod(target),
          six,
          sourceMac: podMac(pod.ifindex),
          sourcePort,
          destinationPort: 5001,
          flags,
        });
      measure('first', programFd, () => make(999, ['SYN']), 7); // opens the connection; its repetitions are established
      for (const [name, packet] of [
        [`established, ${where} pod`, () => make(999, ['ACK'])],
        [`new connection, ${where} pod`, (i: number) => make(1024 + i, ['SYN'])],
      ] as const) {
        const times = measure(name, programFd, packet, 7);
        const medianNs = quantile(times, 0.5) - base;
        rows.push({
          measure: `${name}, IPv${six ? 6 : 4}`,
          unit: 'ns',
          median: medianNs,
          p10: quantile(times, 0.1) - base,
          p90: quantile(times, 0.9) - base,
          goal: goals[name],
          rival: rival[name],
          met: medianNs <= goals[name]! ? 'yes' : 'no',
        });
      }
    }
  }
  rows.push({ measure: 'empty program (subtracted above)', unit: 'ns', median: base });
} finally {
  bed.close();
}
printReport('packets', rows, options.json!);
