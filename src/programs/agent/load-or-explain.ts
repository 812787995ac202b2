// The datapath's place on the bpf file system, and its loading with words that a person can act on.
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { type Datapath, loadDatapath } from '../../connect/datapath/load-datapath.ts';
import { errorText, WeirError } from '../../core/errors.ts';
import { mount } from '../../kernel/libc.ts';

/** Loads the datapath; where the kernel refuses, says what it lacks rather than what it answered. */
export async function loadOrExplain(options: Parameters<typeof loadDatapath>[0]): Promise<Datapath> {
  try {
    return loadDatapath(options);
  } catch (error) {
    if (error instanceof WeirError) throw error;
    const { probeKernel } = await import('../../kernel/doctor.ts');
    const missing = probeKernel().filter((row) => row.required && row.state === 'no');
    if (missing.length === 0) throw error;
    const names = missing.map((row) => row.feature).join(', ');
    throw new WeirError('KERNEL_UNSUPPORTED', `this kernel has no ${names} (${errorText(error)})`);
  }
}

/** Mounts the bpf file system when it is not, and makes the folder in which everything is pinned. */
export function ensureBpffs(path: string): void {
  mkdirSync(path, { recursive: true });
  if (existsSync(join(path, 'weir'))) return;
  try {
    mkdirSync(join(path, 'weir'));
  } catch {
    mount('bpf', path, 'bpf', 0);
    mkdirSync(join(path, 'weir'), { recursive: true });
  }
}
