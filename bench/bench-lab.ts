// A lab of nodes without kubelet for one benchmark, ended with it; and ways to ask its agents.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { addPod, downLab, type LabPod, type PodOptions, upLab } from '../lab/lab.ts';
import { openLab, type SharedLab } from '../test/cluster/shared-lab.ts';

export { waitFor } from '../lab/lab.ts';

/** This checkout, from outside and as nodes of a lab see it. */
export const root = fileURLToPath(new URL('..', import.meta.url));
export const insideRoot = '/run/lab/weir';

/** A lab that is up. */
export type BenchLab = SharedLab & { readonly name: string };

/** Runs `work` in a lab of its own. */
export async function withLab<T>(
  options: { readonly nodes: number; readonly operatorOptions?: readonly string[] },
  work: (lab: BenchLab) => Promise<T>,
): Promise<T> {
  const name = process.env.WEIR_BENCH_LAB ?? 'bench';
  await downLab(name);
  const { operatorOptions = [] } = options;
  await upLab({ name, nodes: 0, kubeletless: options.nodes, operatorOptions });
  try {
    const lab = await openLab(name);
    const result = await work({ ...lab, name });
    lab.api.close();
    return result;
  } finally {
    await downLab(name);
  }
}

/** Adds many pods, some at once; they are all there when it returns. */
export async function addPods(lab: BenchLab, pods: readonly PodOptions[], atOnce = 8): Promise<LabPod[]> {
  const made: LabPod[] = [];
  const left = [...pods];
  await Promise.all(
    Array.from({ length: atOnce }, async () => {
      for (let pod = left.shift(); pod !== undefined; pod = left.shift())
        made.push(await addPod(lab.record, lab.api, pod));
    }),
  );
  return made;
}

/** The memory that a process has in RAM. */
export function residentBytes(pid: number): number {
  return Number(/^VmRSS:\s*(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024;
}

/** The CPU time that a process has had, in seconds. */
export function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100; // clock ticks are hundredths on every Linux
}
