// How long the balancer takes for one packet from outside, by test-run with fresh packets: 100 backends, Maglev, both modes
// and families, in XDP; the same packets in tc beside it. The median over several loads of the program; an empty program,
// which is the cost of the measurement itself, is subtracted.
import { parseArgs } from 'node:util';
import { ProgType } from '../src/kernel/bpf-syscall.ts';
import { closeFd } from '../src/kernel/libc.ts';
import { getLink } from '../src/kernel/links.ts';
import { setNeighbour } from '../src/kernel/neighbours.ts';
import { withNetns } from '../src/kernel/netns.ts';
import { loadInstructions, returnProgram } from '../src/kernel/raw-program.ts';
import { testRun } from '../src/kernel/test-run.ts';
import { type BedPod, createBed } from '../test/bed/bed.ts';
import { tcpPacket } from '../test/bed/packet.ts';
import { withChecksum } from '../test/bed/read-packet.ts';
import { createBedServices } from '../test/bed/services.ts';
import { type Measure, median, printReport, quantile } from './report.ts';

const { values: options } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    packets: { type: 'string', default: '4000' },
    loads: { type: 'string', default: '6' },
    backends: { type: 'string', default: '100' },
  },
});
const packets = Number(options.packets);
const goals: Record<string, number> = { established: 250, 'new flow': 600, 'not a service': 80 };
const rival: Record<string, number> = { established: 531, 'new flow': 1560, 'not a service': 118 };

interface Case {
  readonly name: string;
  readonly kind: string;
  readonly goal: boolean;
  readonly medianNs: number[];
}
const cases = new Map<string, Case>();
const empties: number[] = [];
const client = { ipv4: '10.9.0.200', ipv6: 'fd09::200' };
const other = { ipv4: '10.9.0.1', ipv6: 'fd09::1' };

async function measureLoad(turned: boolean): Promise<void> {
  const bed = await createBed({ pods: [{ name: 'far', node: 1 }] });
  const services = createBedServices(bed);
  const empty = loadInstructions({ type: ProgType.xdp, instructions: returnProgram(2) });
  try {
    const [here, there] = [bed.nodes[0]!, bed.nodes[1]!];
    const mac = getLink(there.netlink, 'eth0')!.mac;
    for (const end of [there, client])
      for (const address of [end.ipv4, end.ipv6])
        setNeighbour(here.netlink, { ifindex: here.deviceIfindex, address, mac });
    const backends = Array.from({ length: Number(options.backends) }, (_, i): BedPod => {
      const number = i + 2;
      return { ...bed.pod('far'), ipv4: `10.244.1.${number}`, ipv6: `fd44:0:0:2::${number.toString(16)}` };
    });
    const modes = [
      { name: 'SNAT', ipv4: '192.0.2.1', ipv6: '2001:db8::1', directReturn: false },
      { name: 'DSR', ipv4: '192.0.2.2', ipv6: '2001:db8::2', directReturn: true },
    ];
    for (const mode of modes) services.add({ ...mode, port: 80, targetPort: 8080, backends });
    const xdp = services.xdp[0]!.program('balance_xdp').fd;
    const tc = here.datapath!.programFd('device');

    const measure = (
      hook: 'XDP' | 'tc',
      programFd: number,
      packet: (i: number) => Uint8Array,
      expected: readonly number[],
    ) => {
      const times: number[] = [];
      const context = hook === 'XDP' ? { xdpIfindex: here.deviceIfindex } : { ctxSkb: { ifindex: here.deviceIfindex } };
      withNetns(here.netnsFd, () => {
        for (let i = 0; i < packets; i++) {
          const { retval, durationNs } = testRun(programFd, packet(i), context);
          if (!expected.includes(retval)) throw new Error(`${hook}: the program answered ${retval} to packet ${i}`);
          times.push(durationNs);
        }
      });
      return times.sort((a, b) => a - b);
    };
    const make = (to: { ipv4: string; ipv6: string }, six: boolean, port: number, flags: ('SYN' | 'ACK')[]) =>
      withChecksum(
        tcpPacket({
          from: client,
          to,
          six,
          sourcePort: port,
          destinationPort: 80,
          flags,
          destinationMac: here.deviceMac,
        }),
      );
    const base = quantile(
      measure('XDP', empty, () => make(other, false, 1, ['ACK']), [2]),
      0.5,
    );
    empties.push(base);
    const take = (name: string, kind: string, goal: boolean, times: readonly number[]) => {
      const found = cases.get(name) ?? { name, kind, goal, medianNs: [] };
      cases.set(name, found);
      found.medianNs.push(quantile(times, 0.5) - base);
    };
    for (const six of turned ? [true, false] : [false, true]) {
      const family = `IPv${six ? 6 : 4}`;
      take(
        `XDP, not a service, ${family}`,
        'not a service',
        true,
        measure('XDP', xdp, () => make(other, six, 1, ['ACK']), [2]),
      );
      for (const mode of modes) {
        withNetns(here.netnsFd, () =>
          testRun(tc, make(mode, six, 999, ['SYN']), { ctxSkb: { ifindex: here.deviceIfindex } }),
        );
        take(
          `XDP, established, ${mode.name}, ${family}`,
          'established',
          true,
          measure('XDP', xdp, () => make(mode, six, 999, ['ACK']), [3, 4]),
        );
        take(
          `tc, established, ${mode.name}, ${family}`,
          'established',
          false,
          measure('tc', tc, () => make(mode, six, 999, ['ACK']), [7]),
        );
        take(
          `XDP, new flow, ${mode.name}, ${family}`,
          'new flow',
          true,
          measure('XDP', xdp, (i) => make(mode, six, 2000 + i, ['SYN']), [3, 4]),
        );
        // It makes what the SYN did not: together they are what a connection costs.
        take(
          `XDP, the packet after, ${mode.name}, ${family}`,
          'second packet',
          false,
          measure('XDP', xdp, (i) => make(mode, six, 2000 + i, ['ACK']), [3, 4]),
        );
      }
    }
  } finally {
    closeFd(empty);
    services.close();
    bed.close();
  }
}

for (let load = 0; load < Number(options.loads); load++) await measureLoad(load % 2 === 1);
const rows: Measure[] = [...cases.values()].map(({ name, kind, goal, medianNs }) => {
  const value = median(medianNs);
  return {
    measure: name,
    unit: 'ns',
    median: value,
    least: Math.min(...medianNs),
    most: Math.max(...medianNs),
    ...(goal ? { goal: goals[kind], rival: rival[kind], met: value <= goals[kind]! ? 'yes' : 'no' } : {}),
  } as Measure;
});
rows.push({ measure: 'empty program (subtracted above)', unit: 'ns', median: median(empties) });
printReport('balancer', rows, options.json!);
