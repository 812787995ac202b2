// Has the kernel verify every program, and says which it refuses and why.
import { globSync } from 'node:fs';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { loadObject } from '../../src/kernel/bpf-object.ts';
import { HostFirewall } from '../../src/kernel/datapath.gen.ts';
import { processProgramNames } from '../../src/observe/processes/process-programs.ts';

const folder = fileURLToPath(new URL('../../build/bpf', import.meta.url));
const { HOST_FIREWALL_OFF, HOST_FIREWALL_ENFORCE } = HostFirewall;
/** The host firewall is code of these; on, they are other programs. */
const withFirewall = ['pod', 'host'].map((name) => `${folder}/${name}.bpf.o`);
const loads = [
  ...globSync(`${folder}/*.bpf.o`).map((path) => ({ path, host_firewall: HOST_FIREWALL_OFF })),
  ...withFirewall.map((path) => ({ path, host_firewall: HOST_FIREWALL_ENFORCE })),
];
for (const { path, host_firewall } of loads.sort((a, b) => (a.path < b.path ? -1 : 1))) {
  const started = performance.now();
  try {
    using object = loadObject({
      path,
      ...(host_firewall !== HOST_FIREWALL_OFF && { constants: { host_firewall } }),
      // Of what older kernels have no tracepoints for nothing is asked.
      ...(basename(path) === 'process.bpf.o' && { programs: processProgramNames() }),
    });
    const verified = [...object.programs].map(([name, { verifiedInsns }]) => `${name} ${verifiedInsns}`);
    console.log(`${basename(path)}: ${verified.join(', ')} (${Math.round(performance.now() - started)} ms)`);
  } catch (error) {
    console.log(`${basename(path)}: ${(error as Error).message}`);
    process.exitCode = 1;
  }
}
