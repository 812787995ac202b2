// Splunk's HTTP Event Collector. A token that wants acknowledgement answers with an id: the batch has arrived when the
// indexers say so of it, and is sent again when they do not.
import { randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import type { ConfigOf } from './export-config.ts';
import { authorization, createHttpClient, member, notTaken, parseAnswer } from './http-post.ts';
import type { QueuedEvent } from './queue-record.ts';
import { allArrived, BatchRefused, type Sink } from './sink.ts';

/** Codes of the collector about single events: bad format, no event, blank event, bad fields. */
const badEvent = [6, 12, 13, 15];

/** Makes a client. `host` is the node's name. */
export function createSplunkSink(config: ConfigOf<'splunk'>, host: string, pollMs = 1_000): Sink {
  const http = createHttpClient(config.url, config);
  const channel = randomUUID();
  const meta = JSON.stringify({ host, source: config.source, ...(config.index && { index: config.index }) }).slice(
    0,
    -1,
  );
  const headers = () => ({
    'content-type': 'application/json',
    'x-splunk-request-channel': channel,
    ...authorization(config.auth, 'Splunk'),
  });

  async function acknowledged(ackId: number, signal: AbortSignal): Promise<void> {
    const until = performance.now() + config.acknowledgeSeconds * 1000;
    while (performance.now() < until) {
      await pause(pollMs, undefined, { signal });
      const answer = await http.post(
        `/services/collector/ack?channel=${channel}`,
        headers(),
        JSON.stringify({ acks: [ackId] }),
        signal,
      );
      if (answer.status !== 200) throw notTaken(answer);
      if (member(member(parseAnswer(answer.text), 'acks'), String(ackId)) === true) return;
    }
    throw new Error(`the indexers did not acknowledge a batch within ${config.acknowledgeSeconds} s`);
  }

  return {
    async send(batch, signal) {
      const body = batch.map((event) => envelope(event, meta)).join('\n');
      const answer = await http.post('/services/collector/event', headers(), body, signal);
      const said = parseAnswer(answer.text);
      const code = member(said, 'code');
      if (answer.status === 413) throw new BatchRefused('the receiver answers 413: the batch is too large');
      if (answer.status === 400 && badEvent.includes(code as number)) {
        const bad = member(said, 'invalid-event-number');
        if (typeof bad !== 'number' || batch[bad] === undefined) throw new BatchRefused(notTaken(answer).message);
        return { again: batch.toSpliced(bad, 1), refused: 1, why: notTaken(answer).message };
      }
      // Anything else, such as a wrong token or index, is for the operator to mend: nothing is given up for it.
      if (answer.status !== 200 || code !== 0) throw notTaken(answer);
      const ackId = member(said, 'ackId');
      if (typeof ackId === 'number') await acknowledged(ackId, signal);
      return allArrived;
    },
    close: http.close,
  };
}

function envelope(event: QueuedEvent, meta: string): string {
  return `${meta},"time":${(event.timeMs / 1000).toFixed(6)},"sourcetype":"weir:${event.kind}","event":${event.body}}`;
}
