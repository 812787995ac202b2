// What the exit status of `weir` means, for scripts.

/** Exit codes of the command line; docs/errors.md explains them. */
export const exitCodes = {
  ok: 0,
  /** The command ran and failed; the message says why. */
  failed: 1,
  /** The command line itself was wrong: nothing was tried. */
  usage: 2,
  /** What was asked for does not exist. */
  notFound: 3,
  /** The agent, the API server or a socket could not be reached. */
  unreachable: 4,
  /** Needs root, or a kernel feature that is missing. */
  notPermitted: 5,
  /** Ended by a signal the user sent (Ctrl-C). */
  interrupted: 130,
} as const;

/** One of the exit codes. */
export type ExitCode = (typeof exitCodes)[keyof typeof exitCodes];
