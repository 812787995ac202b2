// One question to the kernel, and how an attempt becomes an answer.
import { isErrno, KernelError } from '../kernel-error.ts';

export type DoctorRow = {
  feature: string;
  neededFor: string;
  state: 'yes' | 'no' | 'unknown';
  /** Weir does not run without it. */
  required: boolean;
  /** What Weir does where it is missing; empty when it is there. */
  insteadUsed: string;
  /** What was found, or why it could not be found out. */
  detail: string;
};

export type Probe = {
  feature: string;
  neededFor: string;
  /** What Weir does without it. Left out: Weir needs it. */
  instead?: string;
  /** Tries it; returns what is worth telling. Throws when it is not there. */
  attempt: () => string;
};

/** Thrown by an attempt that could not find out. */
export class CannotTell extends Error {}

/** Runs a probe. Whatever it throws becomes an answer. */
export function runProbe(probe: Probe): DoctorRow {
  const row = { feature: probe.feature, neededFor: probe.neededFor, required: probe.instead === undefined };
  try {
    return { ...row, state: 'yes', insteadUsed: '', detail: probe.attempt() };
  } catch (error) {
    if (error instanceof CannotTell) return { ...row, state: 'unknown', insteadUsed: '', detail: error.message };
    const code = error instanceof KernelError ? error.code : (error as NodeJS.ErrnoException).code;
    if ((code === 'EPERM' || code === 'EACCES') && process.getuid?.() !== 0) {
      return { ...row, state: 'unknown', insteadUsed: '', detail: 'could not be tried: run it as root' };
    }
    const detail = error instanceof Error ? error.message : String(error);
    return { ...row, state: 'no', insteadUsed: probe.instead ?? '', detail };
  }
}

/** Runs `attempt`; any of the codes counts as success too, since the kernel only says them when it knows the feature. */
export function acceptingErrno<T>(codes: readonly string[], attempt: () => T): T | undefined {
  try {
    return attempt();
  } catch (error) {
    if (isErrno(error, ...codes)) return undefined;
    throw error;
  }
}
