// The processes of a node: what the kernel says of them, in the order in which it happened, and what /proc adds. A process
// that is gone stays for a while, because what it did may still be told.
import { PROCESS_EVENT_SIZE, ProcessEventOffset, ProcessEventType } from '../../kernel/datapath.gen.ts';
import { type ProcProcess, splitArguments } from '../../kernel/proc.ts';
import type { ProcessContainer, ProcessRow } from './process-row.ts';
import { quoteArguments, redactArguments, withoutSecretValues } from './redact.ts';

/** Whom the kernel means. Times are its own: nanoseconds since the machine began. */
export interface ProcessRef {
  readonly startNs: number;
  readonly pid: number;
  readonly exec: number;
  readonly uid: number;
}

/** Something that a process did. */
export interface ProcessEvent {
  readonly kind: 'exec' | 'exit';
  /** To the microsecond: events that came together are told apart by it when a reader comes back. */
  readonly timeMs: number;
  readonly process: ProcessRow;
}

/** Where a table gets what the kernel does not tell. */
export interface ProcessSources {
  readonly nodeName: string;
  readonly readProcess: (pid: number, startTicks?: number) => ProcProcess | undefined;
  readonly workingDirectory: (pid: number, startTicks: number) => string;
  readonly container: (cgroup: number) => ProcessContainer | undefined;
  readonly containerByPath: (cgroup: string) => ProcessContainer | undefined;
  /** What is left out of arguments; undefined: all of them. */
  readonly redact: readonly RegExp[] | undefined;
  /** Nanoseconds of the kernel's clock to milliseconds since the epoch, with a fraction. */
  readonly wallMs: (bootNs: number) => number;
  readonly maxExited?: number;
}

/** Processes. */
export interface ProcessTable {
  /** Takes one record of the ring of processes: fits `readRing`. */
  record(view: DataView, offset: number, lenBytes: number): void;
  /** Takes what a listing of processes wrote: those that were there before. */
  list(bytes: Uint8Array): void;
  /** The process that the kernel means; undefined for nobody. `catchUp` is called before /proc is asked. */
  find(startNs: number, pid: number, exec: number, uid: number): ProcessRow | undefined;
  /** All that run. */
  running(): ProcessRow[];
  /** Forgets what has ended without a word: called after events were lost. */
  reconcile(): void;
  subscribe(listener: (event: ProcessEvent) => void): () => void;
  readonly counts: {
    readonly execs: number;
    readonly exits: number;
    readonly malformed: number;
    readonly unknown: number;
  };
}

/** Until when it is kept is where it is in the queue of those that ended. */
interface Entry {
  row: Mutable<ProcessRow>;
  readonly startNs: number;
  readonly pid: number;
  readonly exec: number;
  /** What was in the process, or had its pid, before. */
  before: Entry | undefined;
}
type Mutable<T> = { -readonly [K in keyof T]: T[K] };

const decoder = new TextDecoder();
const ticksNs = 1e7;
const defaultMaxExited = 8_192;
/** Programs that one process had one after another, and are remembered. */
const maxBefore = 8;
/** Whoever runs programs with long arguments as fast as it can takes no more than this of the agent's memory for each. */
const maxArgumentsLength = 2_048;

/** Makes a table. `catchUp` reads the ring of processes to its end. */
export function createProcessTable(sources: ProcessSources, catchUp: () => void = () => {}): ProcessTable {
  const { nodeName, redact, maxExited = defaultMaxExited } = sources;
  const byPid = new Map<number, Entry>();
  const exited: Entry[] = [];
  const listeners = new Set<(event: ProcessEvent) => void>();
  const counts = { execs: 0, exits: 0, malformed: 0, unknown: 0 };

  const wholeMs = (bootNs: number) => Math.round(sources.wallMs(bootNs));

  function known(startNs: number, pid: number, exec: number): Entry | undefined {
    for (let entry = byPid.get(pid); entry !== undefined; entry = entry.before)
      if (entry.startNs === startNs && entry.exec === exec) return entry;
    return undefined;
  }

  function keep(entry: Entry): void {
    let depth = 0;
    for (let each: Entry | undefined = entry; each !== undefined; each = each.before)
      if (++depth >= maxBefore) each.before = undefined;
    // Who is told of late, and has been followed by another, does not take its place.
    const top = byPid.get(entry.pid);
    if (top === undefined || top.startNs < entry.startNs || (top.startNs === entry.startNs && top.exec <= entry.exec)) {
      byPid.set(entry.pid, entry);
      return;
    }
    entry.before = top.before;
    top.before = entry;
  }

  function shown(args: readonly string[]): string {
    if (redact === undefined) return '';
    const safe = redact.length === 0 ? args : withoutSecretValues(args);
    // First what is cut off is cut off, so that this never takes longer than it may.
    return redactArguments(quoteArguments(safe).slice(0, maxArgumentsLength), redact);
  }

  function add(ref: ProcessRef, what: Omit<ProcessRow, 'execId' | 'pid' | 'uid' | 'startMs' | 'exit'>): Entry {
    const { startNs, pid, exec, uid } = ref;
    const execId = Buffer.from(`${nodeName}:${startNs}:${pid}:${exec}`).toString('base64url');
    const row = { execId, pid, uid, startMs: wholeMs(startNs), exit: undefined, ...what };
    const entry: Entry = { row, startNs, pid, exec, before: byPid.get(pid) };
    keep(entry);
    return entry;
  }

  /** A process that nobody has told of: it was there before, or the ring was full. */
  function fromProc(ref: ProcessRef, parent: ProcessRow | undefined, container: ProcessContainer | undefined): Entry {
    const proc = sources.readProcess(ref.pid, Math.floor(ref.startNs / ticksNs));
    const own = proc && (sources.containerByPath(proc.cgroup) ?? container);
    const entry = add(ref, {
      binary: proc?.executable || proc?.arguments[0] || '',
      arguments: proc ? shown(proc.arguments.slice(1)) : '',
      cwd: proc?.cwd ?? '',
      execMs: wholeMs(ref.startNs),
      parent: sameContainer(parent, own),
      container: own,
    });
    if (proc === undefined) {
      counts.unknown++;
      end(entry, { atMs: wholeMs(ref.startNs), code: 0, signal: 0 });
    }
    return entry;
  }

  /** Above the first process of a container is its runtime, which is none of the container's business. */
  function sameContainer(
    parent: ProcessRow | undefined,
    container: ProcessContainer | undefined,
  ): ProcessRow | undefined {
    return parent?.container === container ? parent : undefined;
  }

  function refAt(view: DataView, at: number): ProcessRef {
    return {
      startNs: view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32,
      pid: view.getUint32(at + 8, true),
      exec: view.getUint32(at + 12, true),
      uid: view.getUint32(at + 16, true),
    };
  }

  function tell(kind: ProcessEvent['kind'], bootNs: number, process: ProcessRow): void {
    const event = { kind, timeMs: sources.wallMs(bootNs), process };
    for (const listener of listeners) listener(event);
  }

  function parentOf(ref: ProcessRef): ProcessRow | undefined {
    return ref.pid === 0 ? undefined : known(ref.startNs, ref.pid, ref.exec)?.row;
  }

  function record(view: DataView, offset: number, lenBytes: number): void {
    if (lenBytes < PROCESS_EVENT_SIZE) {
      counts.malformed++;
      return;
    }
    const type = view.getUint32(offset + ProcessEventOffset.type, true);
    const word = (field: number) => view.getUint32(offset + field, true);
    const timeNs = word(ProcessEventOffset.timeNs) + word(ProcessEventOffset.timeNs + 4) * 2 ** 32;
    const who = refAt(view, offset + ProcessEventOffset.who);
    const parent = refAt(view, offset + ProcessEventOffset.parent);
    const cgroup = word(ProcessEventOffset.cgroup) + word(ProcessEventOffset.cgroup + 4) * 2 ** 32;
    if (type === ProcessEventType.PROCESS_FORK) {
      if (known(who.startNs, who.pid, who.exec) !== undefined) return;
      const made = parentOf(parent);
      if (made === undefined) return; // It is looked up when it does something.
      const { binary, arguments: args, cwd, container } = made;
      add(who, { binary, arguments: args, cwd, execMs: wholeMs(who.startNs), parent: made, container });
    } else if (type === ProcessEventType.PROCESS_EXEC) {
      const [pathLen, argsLen] = [word(ProcessEventOffset.pathLen), word(ProcessEventOffset.argsLen)];
      if (PROCESS_EVENT_SIZE + pathLen + argsLen > lenBytes) {
        counts.malformed++;
        return;
      }
      counts.execs++;
      if (known(who.startNs, who.pid, who.exec) !== undefined) return;
      const start = view.byteOffset + offset + PROCESS_EVENT_SIZE;
      const path = decoder.decode(new Uint8Array(view.buffer, start, Math.max(0, pathLen - 1)));
      const args = splitArguments(new Uint8Array(view.buffer, start + pathLen, argsLen));
      const container = sources.container(cgroup);
      const cwd = sources.workingDirectory(who.pid, Math.floor(who.startNs / ticksNs));
      // A program's own forebear in the same process is not its parent.
      const made = parentOf(parent);
      const cut = word(ProcessEventOffset.argsCut) > 0 ? ' …' : '';
      const entry = add(who, {
        binary: path.startsWith('/') || cwd === '' ? path : `${cwd === '/' ? '' : cwd}/${path.replace(/^\.\//, '')}`,
        arguments: shown(args.slice(1)) + (redact === undefined ? '' : cut),
        cwd,
        execMs: wholeMs(timeNs),
        parent: sameContainer(made, container),
        container,
      });
      tell('exec', timeNs, entry.row);
    } else if (type === ProcessEventType.PROCESS_EXIT) {
      counts.exits++;
      const entry = known(who.startNs, who.pid, who.exec);
      if (entry === undefined || entry.row.exit !== undefined) return;
      const status = word(ProcessEventOffset.exitStatus);
      end(entry, { atMs: wholeMs(timeNs), code: (status >> 8) & 0xff, signal: status & 0x7f });
      tell('exit', timeNs, entry.row);
    } else counts.malformed++;
  }

  function end(entry: Entry, exit: NonNullable<ProcessRow['exit']>): void {
    for (let each: Entry | undefined = entry; each !== undefined && each.startNs === entry.startNs; each = each.before)
      each.row.exit ??= exit;
    exited.push(entry);
    while (exited.length > maxExited) {
      const oldest = exited.shift()!;
      // Whoever is descended from it goes on without it: a chain of forks would keep all of itself.
      oldest.row.parent = undefined;
      if (byPid.get(oldest.pid) === oldest) byPid.delete(oldest.pid);
    }
  }

  return {
    record,
    list(bytes) {
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      const all: { who: ProcessRef; parent: ProcessRef }[] = [];
      for (let at = 0; at + PROCESS_EVENT_SIZE <= bytes.length; at += PROCESS_EVENT_SIZE)
        all.push({
          who: refAt(view, at + ProcessEventOffset.who),
          parent: refAt(view, at + ProcessEventOffset.parent),
        });
      // Parents first: whoever is older.
      for (const { who, parent } of all.sort((a, b) => a.who.startNs - b.who.startNs))
        if (known(who.startNs, who.pid, who.exec) === undefined) fromProc(who, parentOf(parent), undefined);
    },
    find(startNs, pid, exec, uid) {
      if (pid === 0) return undefined;
      let entry = known(startNs, pid, exec);
      if (entry === undefined) {
        catchUp();
        entry = known(startNs, pid, exec) ?? fromProc({ startNs, pid, exec, uid }, undefined, undefined);
      }
      // It has become somebody else since; what it did before keeps its name.
      if (entry.row.uid !== uid) entry.row = { ...entry.row, uid };
      return entry.row;
    },
    running: () =>
      [...byPid.values()]
        .map((each) => each.row as ProcessRow)
        .filter((row) => row.exit === undefined && row.binary !== ''),
    reconcile() {
      for (const entry of [...byPid.values()]) {
        if (entry.row.exit !== undefined) continue;
        if (sources.readProcess(entry.pid, Math.floor(entry.startNs / ticksNs)) === undefined)
          end(entry, { atMs: Date.now(), code: 0, signal: 0 });
      }
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    counts,
  };
}
