// A bounded queue of events on disk: a folder of segments, each named by the number of its first event, and a file that
// says up to which event all is done. Events are numbered without gaps, so that whatever is lost, by want of room, a
// full disk or a broken file, is a gap that the reader finds and counts, also after the process was killed.
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { createLostNumbers } from './lost-numbers.ts';
import { decodeRecord, encodeRecord, type QueuedEvent } from './queue-record.ts';

/** What is taken from a queue at once. */
export interface QueueBatch {
  readonly events: readonly QueuedEvent[];
  /** Events that were lost before the first of these, and between them; told once they are acknowledged. */
  readonly lost: number;
  readonly bytes: number;
  /** Acknowledging this number acknowledges the batch. */
  readonly lastSeq: number;
}

/** A queue. */
export interface DiskQueue {
  /** Adds an event; it is on its way to the disk with the next `flush`. */
  push(event: Omit<QueuedEvent, 'seq'>): void;
  /** Hands what was added to the kernel: after it the events outlive this process. */
  flush(): void;
  /** The next events that were not taken yet. Only what is flushed is taken. */
  take(maxEvents: number, maxBytes: number): QueueBatch;
  /** All up to this event is done, and is not seen again. */
  acknowledge(seq: number): void;
  readonly status: QueueStatus;
  /** Called after a flush. */
  onFlushed: (() => void) | undefined;
  close(): void;
}

/** How full a queue is. */
export interface QueueStatus {
  readonly bytes: number;
  /** Events that wait, or are being sent; with one that tells of losses, those. */
  readonly events: number;
  readonly maxBytes: number;
  /** Events that are lost: found missing, or known to be before the reader has come to them. */
  readonly lost: number;
  /** Of an older run: bytes of events that were being written when it was killed. */
  readonly tornBytes: number;
  /** Why events cannot be written. */
  readonly error: string | undefined;
}

interface Segment {
  readonly firstSeq: number;
  readonly path: string;
  bytes: number;
}

const segmentPattern = /^(\d{16})\.events$/;
const segmentsInQueue = 8;
const bufferBytes = 256 * 1024;
const positionSaveMs = 50;

/** Opens a queue in a folder of its own, or makes it. */
export function openQueue(
  folder: string,
  options: { readonly maxBytes: number; readonly nowMs?: () => number },
): DiskQueue {
  const { maxBytes, nowMs = () => performance.now() } = options;
  const segmentBytes = Math.max(1024, Math.floor(maxBytes / segmentsInQueue));
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const positionFile = join(folder, 'position.json');
  let segments: Segment[] = readdirSync(folder)
    .flatMap((name) => {
      const match = segmentPattern.exec(name);
      const path = join(folder, name);
      return match === null ? [] : [{ firstSeq: Number(match[1]), path, bytes: statSync(path).size }];
    })
    .sort((a, b) => a.firstSeq - b.firstSeq);
  const known = readPosition(positionFile);
  let acknowledged = known ?? (segments[0]?.firstSeq ?? 1) - 1;
  let savedPosition = known;
  let saveTimer: NodeJS.Timeout | undefined;
  let savedAtMs = Number.NEGATIVE_INFINITY;
  let tornBytes = 0;
  /** Lost, and not come to by the reader. */
  const ahead = createLostNumbers();
  let nextSeq = Math.max(acknowledged + 1, repairLast());
  /** Found missing by the reader. */
  let missing = 0;
  /** What was taken and is not acknowledged. */
  let inFlight: { readonly lastSeq: number; readonly events: number }[] = [];
  let error: string | undefined;

  let writing: { readonly fd: number; readonly segment: Segment } | undefined;
  let pending: Buffer[] = [];
  let pendingBytes = 0;
  let pendingFirst = nextSeq;

  /** Where the next event is read: in this segment, or in the first one after it. */
  let reading: { readonly segment: Segment; at: number; readonly fd: number } | undefined;
  let taken = acknowledged;
  // What an earlier run gave up at the beginning has left no file to find it by.
  ahead.add(acknowledged + 1, segments[0]?.firstSeq ?? nextSeq);
  if (known === undefined) savePosition(true);
  dropDone();

  /** Cuts off what was being written when the process was killed; answers with the number after the last event. */
  function repairLast(): number {
    const last = segments.at(-1);
    if (last === undefined) return 1;
    let next = last.firstSeq;
    let good = 0;
    const fd = openSync(last.path, 'r+');
    try {
      scan(fd, 0, last.bytes, (event, end) => {
        next = numberAfter(event);
        good = end;
        return true;
      });
      // A file is made when there is an event to write: an empty one lost it.
      if (good < last.bytes || last.bytes === 0) {
        tornBytes = Math.max(1, last.bytes - good);
        ftruncateSync(fd, good);
        last.bytes = good;
        // At least one event was there: its number is given to nobody else, and so it is counted.
        next++;
        ahead.add(next - 1, next);
      }
    } finally {
      closeSync(fd);
    }
    if (last.bytes === 0) {
      rmSync(last.path, { force: true });
      segments.pop();
    }
    return next;
  }

  function savePosition(now: boolean): void {
    if (savedPosition === acknowledged) return;
    const time = nowMs();
    if (!now && time - savedAtMs < positionSaveMs) {
      saveTimer ??= setTimeout(() => savePosition(true), positionSaveMs).unref();
      return;
    }
    clearTimeout(saveTimer);
    saveTimer = undefined;
    try {
      writeFileSync(`${positionFile}.tmp`, JSON.stringify({ acknowledged }), { mode: 0o600 });
      renameSync(`${positionFile}.tmp`, positionFile);
      savedPosition = acknowledged;
      savedAtMs = time;
    } catch (failure) {
      error = (failure as Error).message;
    }
  }

  /** The number after the last event that a segment may have. */
  function endOf(index: number): number {
    return segments[index + 1]?.firstSeq ?? pendingFirst;
  }

  /** Removes segments of which every event is done. The position comes first: what is gone must not be missed. */
  function dropDone(): void {
    while (segments.length > 0 && segments[0]! !== writing?.segment && endOf(0) - 1 <= acknowledged) {
      savePosition(true);
      const gone = segments.shift()!;
      forget(gone);
    }
  }

  function forget(segment: Segment): void {
    if (reading?.segment === segment) leaveReading();
    rmSync(segment.path, { force: true });
  }

  /** Events with numbers from `from` up to and without `until` that the reader will find, as far as is known. */
  function waitingIn(from: number, until: number): number {
    return Math.max(0, until - from - ahead.count(from, until));
  }

  function totalBytes(): number {
    return segments.reduce((sum, each) => sum + each.bytes, 0);
  }

  /** Makes room: the oldest segment goes of which nothing is being sent just now. */
  function makeRoom(wanted: number): boolean {
    while (totalBytes() + wanted > maxBytes) {
      const idle = taken === acknowledged;
      const at = segments.findIndex((each) => each !== writing?.segment && (idle || each.firstSeq > taken));
      if (at < 0) return false;
      ahead.add(Math.max(segments[at]!.firstSeq, taken + 1), endOf(at));
      const [gone] = segments.splice(at, 1);
      forget(gone!);
    }
    return true;
  }

  function rotate(): void {
    if (writing === undefined) return;
    closeSync(writing.fd);
    writing = undefined;
  }

  function flush(): void {
    if (pending.length === 0) return;
    const bytes = Buffer.concat(pending, pendingBytes);
    const first = pendingFirst;
    pending = [];
    pendingBytes = 0;
    try {
      if (writing !== undefined && writing.segment.bytes + bytes.length > segmentBytes) rotate();
      if (!makeRoom(bytes.length)) throw new Error('the queue is full of events that are being sent');
      if (writing === undefined) {
        const path = join(folder, `${String(first).padStart(16, '0')}.events`);
        const segment = { firstSeq: first, path, bytes: 0 };
        writing = { fd: openSync(path, 'w', 0o600), segment };
        segments.push(segment);
      }
      writeAll(writing.fd, bytes, writing.segment.bytes);
      writing.segment.bytes += bytes.length;
      error = undefined;
    } catch (failure) {
      error = (failure as Error).message;
      ahead.add(first, nextSeq);
      // What was written in part is not there; the numbers stay unused, so that the reader counts them.
      const broken = writing;
      rotate();
      if (broken !== undefined && broken.segment.bytes === 0) {
        segments = segments.filter((each) => each !== broken.segment);
        forget(broken.segment);
      }
    }
    pendingFirst = nextSeq;
    queue.onFlushed?.();
  }

  function take(maxEvents: number, maxTakenBytes: number): QueueBatch {
    const events: QueuedEvent[] = [];
    const before = taken;
    let bytes = 0;
    let lost = 0;
    for (let place = currentPlace(); place !== undefined; place = currentPlace()) {
      let full = false;
      const { segment } = place;
      const outcome = scan(place.fd, place.at, segment.bytes, (event, end) => {
        const size = end - place!.at;
        if (event.seq > taken) {
          full = events.length > 0 && (events.length >= maxEvents || bytes + size > maxTakenBytes);
          if (full) return false;
          lost += event.seq - taken - 1;
          taken = numberAfter(event) - 1;
          bytes += size;
          events.push(event);
        }
        place!.at = end;
        return true;
      });
      if (full) break;
      const following = segments[segments.indexOf(segment) + 1];
      if (following === undefined) {
        // Behind what cannot be read nothing is written any more.
        if (outcome === 'broken' && writing?.segment === segment) rotate();
        break;
      }
      moveTo(following);
    }
    missing += lost;
    ahead.passed(taken);
    if (taken > before) inFlight.push({ lastSeq: taken, events: taken - before - lost });
    return { events, lost, bytes, lastSeq: taken };
  }

  function currentPlace(): typeof reading {
    if (reading === undefined) {
      const segment = segments.find((_, i) => endOf(i) - 1 > taken);
      if (segment !== undefined) moveTo(segment);
    }
    return reading;
  }

  function moveTo(segment: Segment): void {
    leaveReading();
    reading = { segment, at: 0, fd: openSync(segment.path, 'r') };
  }

  function leaveReading(): void {
    if (reading !== undefined) closeSync(reading.fd);
    reading = undefined;
  }

  const queue: DiskQueue = {
    push(event) {
      const seq = nextSeq;
      nextSeq = numberAfter({ ...event, seq });
      const record = encodeRecord({ ...event, seq });
      if (record === undefined) {
        // Its number stays unused, and so it is counted.
        ahead.add(seq, nextSeq);
        return;
      }
      pending.push(record);
      pendingBytes += record.length;
      if (pendingBytes >= Math.min(bufferBytes, segmentBytes)) flush();
    },
    flush,
    take,
    acknowledge(seq) {
      acknowledged = Math.max(acknowledged, seq);
      inFlight = inFlight.filter((each) => each.lastSeq > acknowledged);
      savePosition(false);
      dropDone();
    },
    get status() {
      return {
        bytes: totalBytes(),
        events:
          segments.reduce((sum, each, i) => sum + waitingIn(Math.max(each.firstSeq, taken + 1), endOf(i)), 0) +
          inFlight.reduce((sum, each) => sum + each.events, 0) +
          pending.length,
        maxBytes,
        lost: missing + ahead.count(),
        tornBytes,
        error,
      };
    },
    onFlushed: undefined,
    close() {
      flush();
      savePosition(true);
      rotate();
      dropDone();
      leaveReading();
    },
  };
  return queue;
}

/** The number of the event that comes next. */
function numberAfter({ seq, tellsOf = 0 }: Pick<QueuedEvent, 'seq' | 'tellsOf'>): number {
  return seq + tellsOf + 1;
}

const readBytes = 256 * 1024;

/** Reads records from `from` to `to`; stops where `onEvent` says false. `broken` when what follows is no record. */
function scan(
  fd: number,
  from: number,
  to: number,
  onEvent: (event: QueuedEvent, end: number) => boolean,
): 'end' | 'broken' {
  let buffer = Buffer.allocUnsafe(Math.min(readBytes, Math.max(1, to - from)));
  let start = from;
  let filled = 0;
  let at = 0;
  while (start + at < to) {
    const record = decodeRecord(buffer.subarray(0, filled), at);
    if (record === 'broken') return 'broken';
    if ('event' in record) {
      if (!onEvent(record.event, start + record.end)) return 'end';
      at = record.end;
      continue;
    }
    if (start + at + record.need > to) return 'broken';
    const rest = buffer.subarray(at, filled);
    if (record.need > buffer.length) {
      const larger = Buffer.allocUnsafe(record.need);
      rest.copy(larger);
      buffer = larger;
    } else buffer.copyWithin(0, at, filled);
    filled -= at;
    start += at;
    at = 0;
    const count = readSync(fd, buffer, filled, Math.min(buffer.length - filled, to - start - filled), start + filled);
    if (count === 0) return 'broken';
    filled += count;
  }
  return 'end';
}

function writeAll(fd: number, bytes: Buffer, from: number): void {
  for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at, bytes.length - at, from + at);
}

function readPosition(file: string): number | undefined {
  try {
    const { acknowledged } = JSON.parse(readFileSync(file, 'utf8')) as { acknowledged?: unknown };
    return Number.isSafeInteger(acknowledged) && (acknowledged as number) >= 0 ? (acknowledged as number) : undefined;
  } catch {
    return undefined; // What is there is sent again: rather twice than never.
  }
}
