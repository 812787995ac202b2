// A process of this node as flows and lists show it. Text in it comes from strangers: outputs escape it.

/** What one exec made of a process, or what a fork made without one. */
export interface ProcessRow {
  /** Says the same process on every node and at every time: base64 of node, start and pid, and how often it called exec. */
  readonly execId: string;
  /** As the node's own pid namespace numbers it. */
  readonly pid: number;
  readonly uid: number;
  /** Path of the program; as it was given to exec where it could not be looked up. */
  readonly binary: string;
  /** One string, as a shell would take it; what looks like a secret is replaced. */
  readonly arguments: string;
  /** Empty where it could not be had. */
  readonly cwd: string;
  /** When the process began, since the epoch. */
  readonly startMs: number;
  /** When this program began in it; the same as startMs for a fork. */
  readonly execMs: number;
  /** Undefined while it runs. */
  readonly exit: { readonly atMs: number; readonly code: number; readonly signal: number } | undefined;
  /** The process that made it; undefined for the container's first one, and for what is not known. */
  readonly parent: ProcessRow | undefined;
  readonly container: ProcessContainer | undefined;
}

/** The container that a process runs in. Shared by its processes; a name that comes late appears in place. */
export interface ProcessContainer {
  readonly id: string;
  readonly name: string;
  readonly image: string;
  readonly podUid: string;
  readonly namespace: string;
  readonly pod: string;
}
