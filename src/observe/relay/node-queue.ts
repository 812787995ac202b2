// What one node has sent of a call and nobody has taken yet: bytes as they came, read one response after another.
import type { RpcStream } from '../rpc/rpc-connection.ts';
import { type ResponseShape, readResponse, view } from './response-view.ts';

interface Piece {
  readonly bytes: Buffer;
  readonly starts: readonly number[];
  readonly ends: readonly number[];
  readonly arrivedMs: number;
}

/** A node's responses in the order in which it sent them. */
export class NodeQueue {
  readonly node: string;
  stream: RpcStream | undefined;
  /** The node has told all; nothing comes any more. */
  done = false;
  /** It was silent for too long and is not waited for until it speaks. */
  skipped = false;
  /** Since when anything more that the node sends would have been seen. */
  listeningSinceMs: number;
  /** The latest time of a response that came. */
  latestUs = Number.NEGATIVE_INFINITY;
  late = 0;

  /** The response that is next, when there is one. */
  bytes: Buffer | undefined;
  start = 0;
  end = 0;
  kind = 0;
  timeUs = 0;
  arrivedMs = 0;

  readonly #limitBytes: number;
  readonly #shape: ResponseShape;
  #pieces: Piece[] = [];
  #index = 0;
  #queued = 0;
  #paused = false;

  constructor(node: string, shape: ResponseShape, limitBytes: number, nowMs: number) {
    this.node = node;
    this.#shape = shape;
    this.#limitBytes = limitBytes;
    this.listeningSinceMs = nowMs;
  }

  /** So much is here that no more is taken; a new stream begins with that. */
  get paused(): boolean {
    return this.#paused;
  }

  /** Adds what came; true when there was nothing before. */
  add(bytes: Buffer, starts: readonly number[], ends: readonly number[], arrivedMs: number): boolean {
    this.listeningSinceMs = arrivedMs;
    this.#pieces.push({ bytes, starts, ends, arrivedMs });
    this.#queued += ends.at(-1)! - starts[0]!;
    if (this.#queued > this.#limitBytes && !this.#paused) {
      this.#paused = true;
      this.stream?.pause();
    }
    if (this.bytes !== undefined) return false;
    this.#index = -1;
    this.next(arrivedMs);
    return true;
  }

  /** The latest time of all that came, also of what is not read yet. */
  receivedUs(): number {
    let latest = this.latestUs;
    const last = this.#pieces.at(-1);
    for (const [i, start] of last?.starts.entries() ?? []) {
      readResponse(last!.bytes, start, last!.ends[i]!, this.#shape);
      if (view.timeUs > latest) latest = view.timeUs;
    }
    return latest;
  }

  /** Goes on to the next response; false when there is none. */
  next(nowMs: number): boolean {
    let piece = this.#pieces[0];
    if (piece !== undefined && ++this.#index >= piece.starts.length) {
      this.#queued -= piece.ends.at(-1)! - piece.starts[0]!;
      this.#pieces.shift();
      this.#index = 0;
      piece = this.#pieces[0];
      if (this.#paused && this.#queued <= this.#limitBytes / 2) {
        this.#paused = false;
        this.listeningSinceMs = nowMs;
        this.stream?.resume();
      }
    }
    if (piece === undefined) {
      this.bytes = undefined;
      return false;
    }
    this.bytes = piece.bytes;
    this.start = piece.starts[this.#index]!;
    this.end = piece.ends[this.#index]!;
    this.arrivedMs = piece.arrivedMs;
    readResponse(piece.bytes, this.start, this.end, this.#shape);
    this.kind = view.kind;
    // What has no time, such as news of a node, stands where it came.
    this.timeUs = view.timeUs >= 0 ? view.timeUs : Math.max(0, this.latestUs);
    if (this.timeUs > this.latestUs) this.latestUs = this.timeUs;
    return true;
  }
}

/** The queues that have something, the one with the earliest response first. */
export class QueueHeap {
  readonly #heap: NodeQueue[] = [];

  get first(): NodeQueue | undefined {
    return this.#heap[0];
  }

  push(queue: NodeQueue): void {
    let at = this.#heap.length;
    this.#heap.push(queue);
    while (at > 0) {
      const above = (at - 1) >> 1;
      if (this.#heap[above]!.timeUs <= queue.timeUs) break;
      this.#heap[at] = this.#heap[above]!;
      at = above;
    }
    this.#heap[at] = queue;
  }

  /** Puts the first where it belongs, after its time has changed. */
  settleFirst(): void {
    const heap = this.#heap;
    const queue = heap[0];
    if (queue === undefined) return;
    let at = 0;
    for (;;) {
      let below = 2 * at + 1;
      if (below >= heap.length) break;
      if (below + 1 < heap.length && heap[below + 1]!.timeUs < heap[below]!.timeUs) below++;
      if (heap[below]!.timeUs >= queue.timeUs) break;
      heap[at] = heap[below]!;
      at = below;
    }
    heap[at] = queue;
  }

  removeFirst(): void {
    const last = this.#heap.pop();
    if (last === undefined || this.#heap.length === 0) return;
    this.#heap[0] = last;
    this.settleFirst();
  }
}
