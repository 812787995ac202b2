// The one error that leaves this folder: a system call failed, with its errno made readable.
import { constants } from 'node:os';

const nameByErrno = new Map<number, string>();
for (const [name, number] of Object.entries(constants.errno)) {
  // EWOULDBLOCK and EOPNOTSUPP share numbers with EAGAIN and ENOTSUP: the first name wins.
  if (!nameByErrno.has(number)) nameByErrno.set(number, name);
}
// Known to bpf(2), not to Node: the kernel-internal "operation not supported".
nameByErrno.set(524, 'ENOTSUPP');

const textByCode: Record<string, string> = {
  EPERM: 'operation not permitted',
  ENOENT: 'no such entry',
  EINTR: 'interrupted',
  E2BIG: 'too big, or full',
  EBADF: 'file descriptor is not open',
  EAGAIN: 'try again',
  ENOMEM: 'out of memory',
  EACCES: 'permission denied',
  EFAULT: 'bad address',
  EBUSY: 'busy',
  EEXIST: 'exists already',
  ENODEV: 'no such device',
  EINVAL: 'invalid argument',
  ENOSPC: 'no space left',
  ERANGE: 'out of range',
  EOPNOTSUPP: 'not supported',
  ENOTSUP: 'not supported',
  ENOTSUPP: 'not supported by the kernel',
  ENETUNREACH: 'network is unreachable',
  ESRCH: 'no such route or process',
  ENOBUFS: 'buffer overrun',
  ETIMEDOUT: 'timed out',
};

/** The symbolic name of an errno, such as `EPERM`; `errno N` when it has none. */
export function errnoName(errno: number): string {
  return nameByErrno.get(errno) ?? `errno ${errno}`;
}

/** A system call failed. `code` is the symbolic errno (`EPERM`), `detail` what was being done or what the kernel said. */
export class KernelError extends Error {
  readonly syscall: string;
  readonly errno: number;
  readonly code: string;
  readonly detail: string;
  /** The call failed because a BPF map has reached max_entries (E2BIG of hashes, ENOSPC of LPM tries). */
  readonly mapFull: boolean;

  constructor(syscall: string, errno: number, detail = '', options: { mapFull?: boolean; cause?: unknown } = {}) {
    const code = errnoName(errno);
    const text = textByCode[code];
    super(`${syscall}: ${code}${text ? ` (${text})` : ''}${detail ? `: ${detail}` : ''}`, { cause: options.cause });
    this.name = 'KernelError';
    this.syscall = syscall;
    this.errno = errno;
    this.code = code;
    this.detail = detail;
    this.mapFull = options.mapFull ?? false;
  }
}

/** True when `error` says that a BPF map is full. */
export function isMapFull(error: unknown): boolean {
  return error instanceof KernelError && error.mapFull;
}

/** True when `error` is a KernelError with one of these symbolic codes. */
export function isErrno(error: unknown, ...codes: string[]): error is KernelError {
  return error instanceof KernelError && codes.includes(error.code);
}
