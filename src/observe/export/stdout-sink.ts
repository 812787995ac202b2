// Lines on standard output, for a collector that reads containers' output. Not through process.stdout: that one waits
// for a full pipe with everything else waiting, too.
import { createWriteStream } from 'node:fs';
import type { Writable } from 'node:stream';
import type { QueuedEvent } from './queue-record.ts';
import { allArrived, type Sink } from './sink.ts';

/** Writes lines to `open()`, at its reader's pace. */
export function createStdoutSink(
  open: () => Writable = () => createWriteStream('', { fd: 1, autoClose: false }),
): Sink {
  let out: Writable | undefined;
  /** What was written and is not through yet: asked for again, it is waited for, not written twice. */
  let pending: { readonly batch: readonly QueuedEvent[]; readonly done: Promise<void> } | undefined;
  return {
    async send(batch) {
      if (pending?.batch !== batch) {
        await pending?.done;
        if (out === undefined) {
          out = open();
          out.on('error', () => {
            out = undefined;
          });
        }
        const stream = out;
        const done = new Promise<void>((resolve, reject) =>
          stream.write(`${batch.map((event) => event.body).join('\n')}\n`, (error) =>
            error ? reject(error) : resolve(),
          ),
        );
        done.catch(() => {});
        pending = { batch, done };
      }
      try {
        await pending.done;
      } finally {
        pending = undefined;
      }
      return allArrived;
    },
    close() {},
  };
}
