// Pods get their hook by the quick way first and by the fast one later: attaching a tcx link takes the kernel 8 ms, in
// which no other device of the node can be changed. So it waits for a moment in which no pod comes.

/** Attachments that wait for their upgrade, by name. */
export interface AttachmentUpgrades<A> {
  /** Upgrades it when it has been quiet for a while; what waits already waits on. */
  add(name: string, attachment: A): void;
  /** Gives it up, also when it is under way. */
  drop(name: string): void;
  waiting(): [name: string, attachment: A][];
  close(): void;
}

/** A second without a new pod is quiet. */
const defaultQuietMs = 1_000;
/** Where pods never stop coming, each waits no longer than this for the quiet. */
const defaultLongestMs = 30_000;

/** `upgrade` is asked for one attachment at a time; it asks `wanted` before what it does counts. */
export function createAttachmentUpgrades<A>(options: {
  readonly upgrade: (attachment: A, wanted: () => boolean) => Promise<unknown>;
  readonly onError: (message: string, error: unknown) => void;
  readonly quietMs?: number;
  readonly longestMs?: number;
}): AttachmentUpgrades<A> {
  const { upgrade, quietMs = defaultQuietMs, longestMs = defaultLongestMs } = options;
  const waiting = new Map<string, { readonly attachment: A; readonly sinceMs: number }>();
  let lastMs = 0;
  let timer: NodeJS.Timeout | undefined;
  let running = false;

  function dueInMs(): number | undefined {
    const [first] = waiting.values();
    if (first === undefined) return undefined;
    return Math.max(0, Math.min(lastMs + quietMs, first.sinceMs + longestMs) - performance.now());
  }

  function schedule(): void {
    const dueMs = running ? undefined : dueInMs();
    clearTimeout(timer);
    if (dueMs !== undefined) timer = setTimeout(() => void next(), dueMs).unref();
  }

  async function next(): Promise<void> {
    const [first] = waiting;
    if (first === undefined) return;
    const [name, entry] = first;
    running = true;
    try {
      await upgrade(entry.attachment, () => waiting.get(name) === entry);
    } catch (error) {
      options.onError(`could not attach ${name} with tcx, clsact stays`, error);
    } finally {
      running = false;
      if (waiting.get(name) === entry) waiting.delete(name);
      schedule();
    }
  }

  return {
    add(name, attachment) {
      lastMs = performance.now();
      waiting.set(name, { attachment, sinceMs: lastMs });
      schedule();
    },
    drop(name) {
      waiting.delete(name);
      schedule();
    },
    waiting: () => [...waiting].map(([name, { attachment }]) => [name, attachment]),
    close() {
      waiting.clear();
      clearTimeout(timer);
    },
  };
}
