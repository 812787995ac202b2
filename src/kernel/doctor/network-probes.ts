// Questions about networking, asked inside a namespace made for it and thrown away.
import { addAddress } from '../addresses.ts';
import { attachXdp } from '../bpf-link.ts';
import { ProgType } from '../bpf-syscall.ts';
import { probeAttachMethod } from '../device-attachment.ts';
import { closeFd } from '../libc.ts';
import { createLink, createVeth, createVxlan } from '../links.ts';
import { type Netlink, openNetlink } from '../netlink.ts';
import { createNetns, withNetns } from '../netns.ts';
import { loadInstructions, returnProgram } from '../raw-program.ts';
import { addRule } from '../rules.ts';
import { attachClsact } from '../tc-filter.ts';
import type { Probe } from './probe.ts';

const probeIfindex = 100;

function inside(attempt: (netlink: Netlink, netnsFd: number) => string): () => string {
  return () => {
    const netnsFd = createNetns();
    try {
      using netlink = openNetlink({ netnsFd });
      return attempt(netlink, netnsFd);
    } finally {
      closeFd(netnsFd);
    }
  };
}

function makeVeth(netlink: Netlink): void {
  createVeth(netlink, { name: 'probe0', ifindex: probeIfindex, peer: { name: 'probe1' } });
}

function withProgram(type: number, attempt: (fd: number) => void): void {
  const fd = loadInstructions({ type, instructions: returnProgram(2) });
  try {
    attempt(fd);
  } finally {
    closeFd(fd);
  }
}

export const networkProbes: readonly Probe[] = [
  { feature: 'network namespaces', neededFor: 'pods', attempt: inside(() => '') },
  {
    feature: 'veth pairs',
    neededFor: 'pods',
    attempt: inside((netlink) => {
      makeVeth(netlink);
      return '';
    }),
  },
  {
    feature: 'IPv6',
    neededFor: 'IPv6 addresses of pods',
    instead: 'IPv4 only',
    attempt: inside((netlink) => {
      makeVeth(netlink);
      addAddress(netlink, { ifindex: probeIfindex, address: 'fd00::1/64' });
      return '';
    }),
  },
  {
    feature: 'tcx attachments',
    neededFor: 'the fastest hook of pods and devices',
    instead: 'clsact filters',
    attempt() {
      if (probeAttachMethod() !== 'tcx') throw new Error('the kernel does not know them');
      return '';
    },
  },
  {
    feature: 'clsact filters',
    neededFor: 'hooks where tcx is missing',
    instead: 'tcx attachments',
    attempt: inside((netlink) => {
      makeVeth(netlink);
      withProgram(ProgType.schedCls, (programFd) =>
        attachClsact(netlink, { ifindex: probeIfindex, direction: 'ingress', programFd, name: 'probe' }),
      );
      return '';
    }),
  },
  {
    feature: 'native XDP on veth',
    neededFor: 'balancing of packets from outside',
    instead: 'nothing',
    attempt: inside((netlink, netnsFd) => {
      makeVeth(netlink);
      withProgram(ProgType.xdp, (programFd) =>
        closeFd(withNetns(netnsFd, () => attachXdp({ ifindex: probeIfindex, programFd, mode: 'native' }))),
      );
      return '';
    }),
  },
  {
    feature: 'policy routing rules',
    neededFor: 'nothing yet (DNS and L7 policy)',
    instead: 'nothing',
    attempt: inside((netlink) => {
      addRule(netlink, { family: 4, priority: 9, table: 2004, mark: 0x200, markMask: 0xf00 });
      return '';
    }),
  },
  {
    feature: 'VXLAN',
    neededFor: 'nothing yet (tunnels between nodes)',
    instead: 'nothing',
    attempt: inside((netlink) => {
      createVxlan(netlink, { name: 'probe0', port: 8472, external: true });
      return '';
    }),
  },
  {
    feature: 'WireGuard',
    neededFor: 'nothing yet (encryption)',
    instead: 'nothing',
    attempt: inside((netlink) => {
      createLink(netlink, { name: 'probe0', kind: 'wireguard' });
      return '';
    }),
  },
];
