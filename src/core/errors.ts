// Errors that an operator can mend. Every code is declared here once, with what it means and what to do;
// docs/errors.md is held against this table by a test. Expected outcomes are values, bugs are plain exceptions.

/** What a code means and the usual way out of it. */
export interface ErrorEntry {
  readonly message: string;
  readonly hint: string;
}

/** All operator errors. Add a code here and a section to docs/errors.md. Keep it sorted. */
export const errorTable = {
  ACCESS_REFUSED: {
    message: 'The relay does not show the caller what was asked for.',
    hint: 'Say who you are with --token-file or a client certificate; docs/access.md has how namespaces are granted.',
  },
  AGENT_RUNNING: {
    message: 'Another agent runs on this node.',
    hint: 'Two agents would write the same maps with different numbers: end the other one first, or leave it be.',
  },
  AGENT_UNREACHABLE: {
    message: 'The agent’s socket does not answer.',
    hint: 'Is the agent running? In a lab: `weir lab status`. Else name its socket with --socket.',
  },
  BPF_OBJECT_MISSING: {
    message: 'The compiled datapath is not there.',
    hint: 'Run `make build` in the checkout.',
  },
  CNI_INVALID: {
    message: 'The container runtime’s request or the network configuration cannot be used.',
    hint: 'Correct the field named in the message in the file under /etc/cni/net.d.',
  },
  CONFIG_INVALID: {
    message: 'A setting or flag has a value that cannot be used.',
    hint: 'Correct the value named in the message; `--help` lists what is accepted.',
  },
  IDENTITY_EXHAUSTED: {
    message: 'All identity numbers are in use.',
    hint: 'Exclude labels that differ per pod from identities (operator and agent, --ignore-label), or delete unused pods.',
  },
  INTERNAL: {
    message: 'Weir met a state that should not exist.',
    hint: 'This is a bug in Weir: report it with the output of `weir status -o json`.',
  },
  IPAM_EXHAUSTED: {
    message: 'The node’s block has no free pod address left.',
    hint: 'Delete pods on the node, wait for freed addresses to rest, or give nodes larger blocks (operator, --node-mask-v4).',
  },
  IPAM_POOL_EXHAUSTED: {
    message: 'The cluster’s pools have no block left for a node.',
    hint: 'Give the operator a larger or another pool (--pool-v4, --pool-v6).',
  },
  IP_INVALID: {
    message: 'A text is not an IP address or CIDR.',
    hint: 'Write addresses like 10.0.0.1 or fd00::1 and blocks like 10.0.0.0/8, without zones or leading zeros.',
  },
  KERNEL_UNSUPPORTED: {
    message: 'This kernel lacks something that Weir cannot do without.',
    hint: '`weir doctor` shows what this kernel has and lacks.',
  },
  KUBECONFIG_INVALID: {
    message: 'The kubeconfig cannot be read or lacks what is needed.',
    hint: 'Check the file and its current context with `kubectl config view`, or name another with --kubeconfig.',
  },
  KUBE_PROXY_REMAINS: {
    message: 'Something that kube-proxy left could not be removed.',
    hint: 'Mend what the message says, such as a missing tool, and run it again: what is gone already is no obstacle.',
  },
  KUBE_PROXY_RUNNING: {
    message: 'kube-proxy runs on this node and would put back what is taken away.',
    hint: 'End it first, such as by `kubectl -n kube-system delete daemonset kube-proxy`, and run this again.',
  },
  LABEL_INVALID: {
    message: 'A label or label selector breaks the syntax of Kubernetes.',
    hint: 'Keys are [prefix/]name, names and values at most 63 letters, digits, "-", "_" or ".".',
  },
  LAB_ALREADY_UP: {
    message: 'A lab of this name is up.',
    hint: 'Use it, or end it first: `weir lab down`.',
  },
  LAB_ARGUMENT_INVALID: {
    message: 'A flag or argument of `weir lab` has a value that cannot be used.',
    hint: '`weir lab --help` shows examples.',
  },
  LAB_BUILD_FAILED: {
    message: 'A program of the lab could not be built.',
    hint: 'The message says what failed; `weir lab build` tries again.',
  },
  LAB_BUSY: {
    message: 'Another command is starting or ending this lab.',
    hint: 'Wait until that command has ended.',
  },
  LAB_COMMAND_FAILED: {
    message: 'A program that the lab runs has failed.',
    hint: 'The message has the program’s own words.',
  },
  LAB_MACHINE_UNSUPPORTED: {
    message: 'This machine lacks something that the lab needs.',
    hint: 'The lab needs Linux with namespaces, control groups, overlayfs, veth and the bpf file system.',
  },
  LAB_NOT_FOUND: {
    message: 'There is no such lab, or the lab has no such node.',
    hint: '`weir lab list` shows the labs; `weir lab up` starts one.',
  },
  LAB_NOT_RUNNING: {
    message: 'A part of the lab that is needed does not run.',
    hint: '`weir lab status` shows what runs and where the logs are.',
  },
  LAB_PACKAGE_FAILED: {
    message: 'A Debian package or a Go module could not be fetched or installed.',
    hint: 'Check the network, the sources of apt and GOPROXY, then try again.',
  },
  LAB_PROGRAM_MISSING: {
    message: 'A program that the lab runs is not on this machine.',
    hint: 'Install it with apt-get, or let `weir lab build` do it.',
  },
  LAB_TIMEOUT: {
    message: 'A part of the lab did not become ready in time.',
    hint: '`weir lab status` shows where the logs are.',
  },
  NOT_FOUND: {
    message: 'What was asked for does not exist.',
    hint: 'The list commands show what there is.',
  },
  NOT_ROOT: {
    message: 'This needs root.',
    hint: 'Run it with sudo, or as root.',
  },
  POLICY_INVALID: {
    message: 'A policy cannot be understood, so it isolates the pods it selects and allows nothing.',
    hint: 'Correct the field named in the message and apply the policy again.',
  },
  STATE_FILE_INVALID: {
    message: 'A file in the state directory cannot be understood; it was set aside and the state rebuilt.',
    hint: 'Nothing, if pods keep their addresses: see the agent’s log for the name of the file that was set aside.',
  },
} as const satisfies Record<string, ErrorEntry>;

/** The code of an operator error. */
export type ErrorCode = keyof typeof errorTable;

/**
 * An error with a code, what happened, and what to do next.
 *
 * ```ts
 * throw new WeirError('CONFIG_INVALID', '--nodes is "many"', 'Give a number from 1 to 100.');
 * ```
 */
export class WeirError extends Error {
  readonly code: ErrorCode;
  readonly hint: string;

  constructor(code: ErrorCode, message: string, hint?: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'WeirError';
    this.code = code;
    this.hint = hint ?? errorTable[code].hint;
  }
}

/** The text of anything that was thrown, in one line. */
export function errorText(thrown: unknown): string {
  const text = thrown instanceof Error ? thrown.message || thrown.name : String(thrown);
  return text.replace(/\s*\n\s*/g, '; ');
}
