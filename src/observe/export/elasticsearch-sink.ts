// Elasticsearch and OpenSearch: _bulk with `create` and ids of our own, so that what is sent again makes no second document.
import type { ConfigOf } from './export-config.ts';
import { authorization, createHttpClient, member, notTaken, parseAnswer } from './http-post.ts';
import type { QueuedEvent } from './queue-record.ts';
import { BatchRefused, type SendResult, type Sink } from './sink.ts';

/** Makes a client. */
export function createElasticsearchSink(config: ConfigOf<'elasticsearch'>): Sink {
  const http = createHttpClient(config.url, config);
  return {
    async send(batch, signal) {
      const lines: string[] = [];
      for (const event of batch) {
        const action = { create: { _index: indexOf(config.index, event.timeMs), _id: event.id } };
        lines.push(JSON.stringify(action), event.body);
      }
      const answer = await http.post(
        '/_bulk',
        { 'content-type': 'application/x-ndjson', ...authorization(config.auth, 'ApiKey') },
        `${lines.join('\n')}\n`,
        signal,
      );
      if (answer.status === 413) throw new BatchRefused('the receiver answers 413: the batch is too large');
      if (answer.status === 400) throw new BatchRefused(notTaken(answer).message);
      if (answer.status !== 200) throw notTaken(answer);
      return readBulkAnswer(answer.text, batch);
    },
    close: http.close,
  };
}

/** The index of an event: `{date}` is its day. */
export function indexOf(pattern: string, timeMs: number): string {
  return pattern.replaceAll('{date}', () => new Date(timeMs).toISOString().slice(0, 10).replaceAll('-', '.'));
}

/** What became of each event. Throws when the answer does not say so. */
export function readBulkAnswer(text: string, batch: readonly QueuedEvent[]): SendResult {
  const answer = parseAnswer(text);
  if (member(answer, 'errors') === false) return { again: [], refused: 0 };
  const items = member(answer, 'items');
  if (!Array.isArray(items) || items.length !== batch.length)
    throw new Error('the receiver’s answer does not say what became of the events');
  const again: QueuedEvent[] = [];
  let refused = 0;
  let why: string | undefined;
  for (const [i, item] of items.entries()) {
    const result = member(item, 'create');
    const status = member(result, 'status');
    // 409: it is there already.
    if (status === 200 || status === 201 || status === 409) continue;
    const error = member(result, 'error');
    why ??= `${String(status)} ${String(member(error, 'type') ?? '')}: ${String(member(error, 'reason') ?? '')}`.slice(
      0,
      300,
    );
    // An answer that cannot be understood is no reason to give anything up; nor is a block on the index, which passes.
    const final =
      typeof status === 'number' && status >= 400 && status < 500 && ![401, 403, 404, 408, 429].includes(status);
    if (final) refused++;
    else again.push(batch[i]!);
  }
  return { again, refused, ...(why !== undefined && { why }) };
}
