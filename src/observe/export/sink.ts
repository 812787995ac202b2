// What a receiver's client looks like to the loop that sends.
import type { QueuedEvent } from './queue-record.ts';

/** What became of a batch. What is in neither list has arrived. */
export interface SendResult {
  /** To be sent again: the receiver had no time for them. */
  readonly again: readonly QueuedEvent[];
  /** Can never arrive; given up. */
  readonly refused: number;
  /** What the receiver said of either. */
  readonly why?: string;
  readonly retryAfterMs?: number;
}

/** Sends to one receiver. */
export interface Sink {
  /** Throws when nothing of the batch is known to have arrived. Gives up when `signal` says so. */
  send(batch: readonly QueuedEvent[], signal: AbortSignal): Promise<SendResult>;
  /** The file that is written may have been moved away. */
  reopen?(): void;
  close(): Promise<void> | void;
}

/** Nothing arrived; try again, not before the time that the receiver gave. */
export class ReceiverBusy extends Error {
  readonly retryAfterMs: number | undefined;
  constructor(message: string, retryAfterMs?: number) {
    super(message);
    this.retryAfterMs = retryAfterMs;
  }
}

/** The receiver will never take the batch as it is: too large, or one of its events is bad. */
export class BatchRefused extends Error {}

export const allArrived: SendResult = { again: [], refused: 0 };
