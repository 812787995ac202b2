// Finds out what this machine's kernel offers Weir, by trying each thing, never by comparing versions.
import { bpfProbes } from './doctor/bpf-probes.ts';
import { networkProbes } from './doctor/network-probes.ts';
import { type DoctorRow, type Probe, runProbe } from './doctor/probe.ts';
import { systemProbes } from './doctor/system-probes.ts';

export type { DoctorRow } from './doctor/probe.ts';

/**
 * Tries everything and leaves nothing behind; takes about half a second. Works without root, too: what could not be
 * tried is `unknown`, and its detail says why. Attaches only to devices in a namespace of its own.
 */
export function probeKernel(): DoctorRow[] {
  const probes: readonly Probe[] = [...systemProbes, ...bpfProbes, ...networkProbes];
  return probes.map(runProbe);
}

/** True when nothing that Weir cannot do without is missing. Unknown rows do not count as missing. */
export function canRun(rows: readonly DoctorRow[]): boolean {
  return !rows.some((row) => row.required && row.state === 'no');
}
