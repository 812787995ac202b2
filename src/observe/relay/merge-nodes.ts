// One call over all nodes: their streams as one, in order of time. Responses stay bytes. Whoever reads slowly holds back
// the nodes, which count what is overwritten meanwhile. A node that is silent is waited for only so long.

import { frame, prefixBytes } from '../rpc/message-frames.ts';
import { FramedMessages } from '../rpc/rpc-service.ts';
import { RpcCode, RpcError } from '../rpc/rpc-status.ts';
import { NodeQueue, QueueHeap } from './node-queue.ts';
import type { NodeLink, PeerPool } from './peer-pool.ts';
import type { Grant } from './relay-access.ts';
import { ResponseKind, type ResponseShape } from './response-view.ts';

/** What is asked of all nodes together. */
export interface MergeQuery {
  readonly path: string;
  readonly shape: ResponseShape;
  /** So many of the last, of the first with `first`; 0: all. */
  readonly number: number;
  readonly first: boolean;
  readonly follow: boolean;
  /** Whether `follow` begins with what is new. */
  readonly live: boolean;
  readonly endsByItself: boolean;
  /** The request for a node: the client's, or what is left of it from a time on (microseconds since the epoch). */
  request(fromUs?: number): Uint8Array;
  /** What the client gets for a response. */
  readonly show?: Grant<unknown>['show'];
  /** Tells when something else is to be asked, and when nothing may be given any more. */
  readonly changes?: Grant<unknown>['follow'];
  /** A response that says how nodes are; undefined for calls that have no such thing. */
  readonly status?: (state: NodeNews, nodes: readonly string[], message: string) => Uint8Array;
}

/** News of a node within a call. */
export type NodeNews = 'connected' | 'unavailable' | 'gone' | 'error';

/** What went through all calls so far. */
export interface RelayCounts {
  /** Flows and events that were read of nodes, and that were handed on. */
  received: number;
  sent: number;
  /** Those that came after later ones had been handed on. */
  late: number;
  /** Events that nodes said they had lost. */
  lost: number;
}

/** What calls have in common. */
export interface MergeShared {
  readonly counts?: RelayCounts;
  /** How many events a response of a node says were lost. */
  readonly lostEvents?: (response: Uint8Array) => number;
  readonly pool: PeerPool;
  /** Bytes that all calls may keep while the last of all nodes are sought. */
  readonly tailBytes: { left: number };
  readonly onLate: (node: string, count: number) => void;
  /** For tests: other patience. */
  readonly patience?: Partial<typeof patienceMs>;
}

/** How long a node that is silent is waited for, in milliseconds. */
export const patienceMs = {
  /** While new flows are followed. */
  follow: 250,
  /** When following begins with what there was. */
  backlog: 1_000,
  /** When all is asked for that there is. */
  all: 5_000,
  /** For nodes that are being connected to when a call begins. */
  connect: 1_000,
  /** Until a node is asked again that broke off a call, but not the connection. */
  again: 2_000,
};

/** Of all nodes together, for one call. */
const queuesBytes = 32 << 20;
const queueBytes = { least: 16 << 10, most: 128 << 10 } as const;
const batchBytes = 64 << 10;
/** Room for the response with which a batch becomes full. */
const spareBytes = 4 << 10;
/** Buffers of batches that are used again: a new one for each is work for the collector. */
const spareBuffers = 8;

/** Merges until all is told, or `signal`. */
export async function* mergeNodes(
  shared: MergeShared,
  query: MergeQuery,
  signal: AbortSignal,
): AsyncGenerator<FramedMessages> {
  const { pool, counts: totals } = shared;
  const patience = { ...patienceMs, ...shared.patience };
  const startedUs = Date.now() * 1000;
  const queues = new Map<string, NodeQueue>();
  const heap = new QueueHeap();
  const news: Uint8Array[] = [];
  const spare: Buffer[] = [];
  let failure: RpcError | undefined;
  let wake = () => {};
  let emittedUs = Number.NEGATIVE_INFINITY;
  let count = 0;
  let over = false;
  const tail = query.number > 0 && !query.first ? createTail(query.number, shared.tailBytes) : undefined;
  let tailing = tail !== undefined;
  let holdMs = !query.follow ? patience.all : query.live ? patience.follow : patience.backlog;

  function say(state: NodeNews, nodes: readonly string[], message: string): void {
    if (query.status !== undefined && nodes.length > 0) news.push(query.status(state, nodes, message));
  }

  /** Asks a node: for what the client asked, or for what is left of it. */
  function ask(link: NodeLink, fromUs?: number): void {
    const { name } = link.peer;
    const limit = Math.min(queueBytes.most, Math.max(queueBytes.least, queuesBytes / Math.max(1, pool.nodes().length)));
    const queue = queues.get(name) ?? new NodeQueue(name, query.shape, limit, performance.now());
    queues.set(name, queue);
    queue.done = false;
    queue.listeningSinceMs = performance.now();
    try {
      queue.stream = link.connection!.stream(query.path, query.request(fromUs), {
        messages(bytes, starts, ends) {
          if (queue.skipped) {
            queue.skipped = false;
            if (!query.follow) say('connected', [name], 'it speaks again');
          }
          if (queue.add(bytes, starts, ends, performance.now())) heap.push(queue);
          wake();
        },
        end: (error) => ended(queue, link, error),
      });
      if (queue.paused) queue.stream.pause();
    } catch (error) {
      ended(queue, link, error as RpcError);
    }
  }

  function ended(queue: NodeQueue, link: NodeLink, error: RpcError | undefined): void {
    queue.done = true;
    queue.stream = undefined;
    if (error !== undefined) {
      // What one node does not understand, none does: it is the client's mistake.
      if (error.code === RpcCode.invalidArgument) failure ??= error;
      // While one is followed the pool says when its connection breaks, and when it is back.
      else if (!query.follow || error.code !== RpcCode.unavailable)
        say('error', [queue.node], `${queue.node}: ${error.message}`);
    }
    if (query.follow && failure === undefined && !(error === undefined && query.endsByItself)) again(queue, link);
    wake();
  }

  const retries = new Set<NodeJS.Timeout>();
  function again(queue: NodeQueue, link: NodeLink): void {
    const timer = setTimeout(() => {
      retries.delete(timer);
      if (!over && link.state === 'connected' && queue.done) ask(link, resumeUs(queue));
    }, patience.again);
    retries.add(timer);
  }

  function resumeUs(queue: NodeQueue | undefined): number {
    const received = queue?.receivedUs() ?? Number.NEGATIVE_INFINITY;
    return received >= 0 ? Math.floor(received) + 1 : startedUs;
  }

  const stopFollowing = query.follow
    ? pool.subscribe(({ kind, link }) => {
        const { name } = link.peer;
        if (kind === 'connected') {
          say('connected', [name], '');
          const queue = queues.get(name);
          if (queue === undefined || queue.done) ask(link, resumeUs(queue));
        } else say(kind, [name], link.problem);
        wake();
      })
    : () => {};

  const stopChanges =
    query.changes?.({
      changed() {
        // Who asks for what there was gets it by what was so at the beginning, or less.
        if (!query.follow) return;
        for (const link of pool.nodes()) {
          const queue = queues.get(link.peer.name);
          if (queue === undefined || link.connection === undefined) continue;
          queue.stream?.cancel();
          ask(link, resumeUs(queue));
        }
      },
      ended(error) {
        failure ??= error;
        wake();
      },
    }) ?? (() => {});

  /** Since when all nodes that may have an earlier response than the first would have been heard; -1: there are none. */
  function heardSinceMs(): number {
    let since = -1;
    for (const queue of queues.values())
      if (!queue.done && !queue.skipped && queue.bytes === undefined) since = Math.max(since, queue.listeningSinceMs);
    return since;
  }

  /** Takes what can be taken into a batch. Answers with it, and with the time at which more can be taken. */
  function take(): { batch: Buffer | undefined; whole: Buffer | undefined; untilMs: number } {
    let out: Buffer | undefined;
    let length = 0;
    /** Copies a response with the prefix that is before it. */
    const write = (bytes: Buffer, start: number, end: number) => {
      const size = end - start + prefixBytes;
      if (out === undefined || out.length < length + size) {
        const wanted = batchBytes + spareBytes;
        const larger =
          out === undefined && size <= wanted
            ? (spare.pop() ?? Buffer.allocUnsafeSlow(wanted))
            : Buffer.allocUnsafeSlow(Math.max(wanted, 2 * (length + size)));
        if (out !== undefined) out.copy(larger, 0, 0, length);
        out = larger;
      }
      bytes.copy(out, length, start - prefixBytes, end);
      length += size;
    };
    const result = (untilMs: number) => ({ batch: out?.subarray(0, length), whole: out, untilMs });
    const flushTail = () => {
      for (const each of tail!.take()) {
        write(each.bytes, each.start, each.end);
        if (each.counts) tellSent(1);
      }
      tailing = false;
      holdMs = patience.follow;
    };

    for (const each of news.splice(0)) {
      const framed = frame(each);
      write(framed, prefixBytes, framed.length);
    }
    const now = performance.now();
    let heardMs = heardSinceMs();
    while (!over) {
      const queue = heap.first;
      const allowedMs = heardMs < 0 ? 0 : Math.max(heardMs, queue?.arrivedMs ?? 0) + holdMs;
      if (now < allowedMs) return result(allowedMs);
      if (queue === undefined) {
        if (tailing && query.follow) flushTail();
        else if (heardMs >= 0 && !query.follow) skipSilent(now);
        return result(0);
      }
      if (heardMs >= 0 && !query.follow) {
        skipSilent(now);
        heardMs = heardSinceMs();
        continue;
      }
      if (tailing && query.follow && queue.timeUs >= startedUs) flushTail();
      const { bytes, start, end, kind, timeUs } = queue;
      if (timeUs < emittedUs && timeUs >= queue.latestUs) queue.late++;
      if (timeUs > emittedUs) emittedUs = timeUs;
      if (kind === ResponseKind.item && totals !== undefined) totals.received++;
      // Without a check the bytes go on where they are: this is done for every flow.
      const framed = query.show === undefined ? undefined : shownFrame(bytes!, start, end);
      if (query.show === undefined || framed !== undefined) {
        const counts = kind === ResponseKind.item;
        const from = framed ?? bytes!;
        const begin = framed === undefined ? start : prefixBytes;
        const until = framed === undefined ? end : framed.length;
        if (kind === ResponseKind.lost) tellLost(bytes!.subarray(start, end));
        if (tailing) tail!.add(from, begin, until, counts);
        else {
          write(from, begin, until);
          if (counts) tellSent(1);
        }
        if (counts && query.first && !query.follow && query.number > 0 && ++count >= query.number) over = true;
      }
      if (queue.next(now)) heap.settleFirst();
      else {
        heap.removeFirst();
        if (!queue.done) heardMs = Math.max(heardMs, queue.listeningSinceMs);
      }
      if (length >= batchBytes) return result(now);
    }
    return result(0);
  }

  function tellSent(flows: number): void {
    if (totals !== undefined) totals.sent += flows;
  }

  function tellLost(response: Uint8Array): void {
    if (totals !== undefined) totals.lost += shared.lostEvents?.(response) ?? 0;
  }

  /** What goes on of a response, with its prefix before it. */
  function shownFrame(bytes: Buffer, start: number, end: number): Buffer | undefined {
    const shown = query.show!(bytes, start, end);
    return shown === undefined ? undefined : frame(shown);
  }

  /** Goes on without the nodes that have been silent for too long, and says so. */
  function skipSilent(now: number): void {
    const silent: string[] = [];
    for (const queue of queues.values()) {
      if (queue.done || queue.skipped || queue.bytes !== undefined || now - queue.listeningSinceMs < holdMs) continue;
      queue.skipped = true;
      silent.push(queue.node);
    }
    say('error', silent, `no word for ${holdMs / 1000} s: going on without, what comes late is not in order`);
  }

  try {
    await pool.settled(patience.connect);
    const links = pool.nodes();
    const connected = links.filter((link) => link.connection !== undefined);
    const missing = links.filter((link) => link.connection === undefined);
    say(
      'connected',
      connected.map((link) => link.peer.name),
      '',
    );
    say(
      'unavailable',
      missing.map((link) => link.peer.name),
      missing
        .slice(0, 10)
        .map((link) => `${link.peer.name}: ${link.problem}`)
        .join('; '),
    );
    for (const link of connected) if (queues.get(link.peer.name) === undefined) ask(link);

    while (!signal.aborted) {
      if (failure !== undefined) throw failure;
      const woken = new Promise<void>((resolve) => {
        wake = resolve;
      });
      const { batch, whole, untilMs } = take();
      if (batch !== undefined && batch.length > 0) {
        yield new FramedMessages(batch, () => {
          if (spare.length < spareBuffers && whole!.length === batchBytes + spareBytes) spare.push(whole!);
        });
        if (over) return;
        continue;
      }
      if (over) return;
      if (isAllTold()) {
        const last = tailing ? tail!.take() : [];
        tellSent(last.filter((each) => each.counts).length);
        tailing = false;
        for (const framed of inBatches(last)) yield new FramedMessages(framed);
        return;
      }
      await patient(woken, untilMs, signal);
    }
  } finally {
    over = true;
    stopFollowing();
    stopChanges();
    tail?.close();
    for (const timer of retries) clearTimeout(timer);
    for (const queue of queues.values()) {
      queue.stream?.cancel();
      if (queue.late > 0) shared.onLate(queue.node, queue.late);
    }
  }

  function isAllTold(): boolean {
    if (heap.first !== undefined || news.length > 0 || failure !== undefined) return false;
    if (query.follow && !query.endsByItself) return false;
    for (const queue of queues.values()) if (!queue.done && (query.follow || !queue.skipped)) return false;
    return true;
  }
}

/** Waits for news, at most until then. */
function patient(woken: Promise<void>, untilMs: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = untilMs > 0 ? setTimeout(done, Math.max(1, untilMs - performance.now())) : undefined;
    signal.addEventListener('abort', done);
    void woken.then(done);
    function done(): void {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    }
  });
}

interface Kept {
  readonly bytes: Buffer;
  readonly start: number;
  readonly end: number;
  readonly counts: boolean;
}

/** The last `number` responses that count, with what was said among them. */
function createTail(number: number, budget: { left: number }) {
  let kept: Kept[] = [];
  let from = 0;
  let counted = 0;
  let used = 0;

  function drop(): void {
    const { start, end, counts } = kept[from]!;
    used -= end - start;
    budget.left += end - start;
    if (counts) counted--;
    from++;
  }
  return {
    add(bytes: Buffer, start: number, end: number, counts: boolean): void {
      const size = end - start;
      if (budget.left < size)
        throw new RpcError(
          RpcCode.resourceExhausted,
          'the last of all nodes that were asked for do not fit into memory: ask for fewer, or by a time',
        );
      // A copy: a small flow would keep the whole piece that it came in.
      const copy = Buffer.allocUnsafe(size + prefixBytes);
      bytes.copy(copy, 0, start - prefixBytes, end);
      kept.push({ bytes: copy, start: prefixBytes, end: size + prefixBytes, counts });
      used += size;
      budget.left -= size;
      if (counts) counted++;
      while (counted > number) drop();
      if (from > 1024 && from > kept.length / 2) {
        kept = kept.slice(from);
        from = 0;
      }
    },
    take(): Kept[] {
      const last = kept.slice(from);
      this.close();
      return last;
    },
    close(): void {
      budget.left += used;
      used = 0;
      kept = [];
      from = 0;
      counted = 0;
    },
  };
}

function* inBatches(responses: readonly Kept[]): Generator<Uint8Array> {
  let parts: Uint8Array[] = [];
  let bytes = 0;
  for (const { bytes: each, start, end } of responses) {
    parts.push(each.subarray(start - prefixBytes, end));
    bytes += end - start + prefixBytes;
    if (bytes < batchBytes) continue;
    yield Buffer.concat(parts, bytes);
    parts = [];
    bytes = 0;
  }
  if (parts.length > 0) yield Buffer.concat(parts, bytes);
}
