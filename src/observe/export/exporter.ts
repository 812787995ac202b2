// One exporter: takes the events that it is configured for into its queue, and sends them.
import { join } from 'node:path';
import type { FlowContext } from '../flows/flow-message.ts';
import type { FlowRow } from '../flows/flow-row.ts';
import { createFlowAggregator } from './aggregate-flows.ts';
import { openQueue, type QueueStatus } from './disk-queue.ts';
import { compileJsonMask, createEventEncoder } from './encode-event.ts';
import { compileExportFilters, type ExporterConfig } from './export-config.ts';
import { type ExportEvent, processRing } from './export-event.ts';
import { startSending } from './send-loop.ts';
import type { Sink } from './sink.ts';

/** One exporter. */
export interface Exporter {
  readonly config: ExporterConfig;
  offerFlow(row: FlowRow): void;
  /** Anything that no filter of flows applies to. */
  offer(event: ExportEvent): void;
  /** What was offered outlives this process from now on. */
  flush(): void;
  reopen(): void;
  status(): ExporterStatus;
  close(): Promise<void>;
}

/** How an exporter is doing. Counts are since the agent began. */
export interface ExporterStatus {
  readonly name: string;
  readonly type: string;
  readonly queue: QueueStatus;
  /**
   * All that came to it: flows, what processes did and losses, its own aggregates and words of loss, and what an earlier run
   * had left in its queue; with a loss, what it tells of. It is the sum of the following and of what waits.
   */
  readonly offered: number;
  /** The configuration leaves them out. */
  readonly filtered: number;
  /** Flows that were counted instead of sent. */
  readonly aggregated: number;
  readonly sent: number;
  /** The receiver can never take them; with a loss, what it tells of. */
  readonly refused: number;
  /** Were lost before they came to it, and the receiver was told so. */
  readonly told: number;
  /** Found no room, or were in files that cannot be read. */
  readonly lost: number;
  readonly retries: number;
  /** Seconds since the oldest event that has not arrived; 0 when all have. */
  readonly lagSeconds: number;
  /** What is wrong, for people. */
  readonly problems: readonly string[];
}

const problemAfterMs = 10_000;
/** Losses and refusals are shown for so long. */
const shownMs = 600_000;
const logLossesMs = 10_000;

/** Opens the queue of an exporter under `folder`, and starts sending. */
export function startExporter(options: {
  readonly config: ExporterConfig;
  readonly context: FlowContext;
  readonly folder: string;
  readonly sink: Sink;
  readonly warn: (message: string, fields: Record<string, unknown>) => void;
}): Exporter {
  const { config, context, sink, warn } = options;
  const { name } = config;
  const queue = openQueue(join(options.folder, name), { maxBytes: config.queue.megabytes * 1024 * 1024 });
  const encode = createEventEncoder(config, context);
  const match = compileExportFilters(config, context, (field, message) => {
    throw new Error(`${field}: ${message}`);
  });
  let offered = queue.status.events + queue.status.lost;
  let filtered = 0;
  let aggregated = 0;
  let broken = 0;
  let lossAtMs = Number.NEGATIVE_INFINITY;
  let toldLost = 0;
  if (queue.status.tornBytes > 0)
    warn('an exporter’s queue ended in the middle of an event: it is counted as lost', { exporter: name });

  const { aggregate } = config;
  const paths = aggregate?.by ?? [];
  const aggregator = aggregate && createFlowAggregator(paths, aggregate.groups, context, compileJsonMask(aggregate.by));
  const aggregateTimer = aggregate && setInterval(flushAggregates, aggregate.seconds * 1000);
  const lossTimer = setInterval(tellLosses, logLossesMs);

  const loop = startSending({
    queue,
    sink,
    batch: {
      events: config.batch.events,
      bytes: config.batch.kilobytes * 1024,
      waitMs: config.batch.seconds * 1000,
    },
    timeoutMs: (config.timeoutSeconds + (config.type === 'splunk' ? config.acknowledgeSeconds : 0)) * 1000,
    onLost(count, next) {
      lossAtMs = Date.now();
      offered++;
      const id = `${context.nodeName}-${name}-lost-${Math.floor(next.timeMs)}-${next.seq}`;
      const loss = { source: 'EXPORT_QUEUE', count, firstMs: next.timeMs, lastMs: next.timeMs, id };
      return { ...encode({ kind: 'lost', loss }), seq: next.seq };
    },
    onError: (message) => warn('an exporter does not get through', { exporter: name, error: message }),
  });

  function push(event: ExportEvent): void {
    try {
      queue.push(event.kind === 'lost' ? { ...encode(event), tellsOf: event.loss.count } : encode(event));
    } catch (error) {
      // One event that cannot be written must not keep the others.
      if (broken === 0) warn('an event could not be written', { exporter: name, error: (error as Error).message });
      broken += event.kind === 'lost' ? 1 + event.loss.count : 1;
    }
  }

  function flushAggregates(): void {
    for (const each of aggregator!.take()) {
      offered++;
      push({ kind: 'aggregate', aggregate: each });
    }
    queue.flush();
  }

  function lostNow(): number {
    return queue.status.lost + broken;
  }

  function tellLosses(): void {
    const lost = lostNow();
    if (lost === toldLost) return;
    lossAtMs = Date.now();
    warn('events were given up', { exporter: name, lost: lost - toldLost, error: queue.status.error ?? 'no room' });
    toldLost = lost;
  }

  return {
    config,
    offerFlow(row) {
      offered++;
      if (!config.flows || !match(row)) {
        filtered++;
        return;
      }
      if (aggregator === undefined) return push({ kind: 'flow', row });
      aggregated++;
      if (aggregator.add(row)) return;
      flushAggregates();
      aggregator.add(row);
    },
    offer(event) {
      offered += event.kind === 'lost' ? 1 + event.loss.count : 1;
      const ofProcesses = event.kind === 'process' || (event.kind === 'lost' && event.loss.source === processRing);
      if (ofProcesses && !config.processes) filtered += event.kind === 'lost' ? 1 + event.loss.count : 1;
      else push(event);
    },
    flush: queue.flush,
    reopen: () => sink.reopen?.(),
    status() {
      const now = Date.now();
      const { failure, refusal, counts, oldestMs } = loop;
      const { status } = queue;
      const lost = lostNow();
      const problems: string[] = [];
      if (lost > toldLost || now - lossAtMs < shownMs)
        problems.push(
          `exporter ${name}: ${lost} events were given up since the agent began: the queue had no room, or could not be used`,
        );
      if (status.error !== undefined) problems.push(`exporter ${name}: its queue cannot be written: ${status.error}`);
      if (failure !== undefined && now - failure.sinceMs > problemAfterMs)
        problems.push(
          `exporter ${name}: nothing arrives since ${new Date(failure.sinceMs).toISOString()}: ${failure.message}`,
        );
      if (refusal !== undefined && now - refusal.atMs < shownMs)
        problems.push(`exporter ${name}: ${counts.refused} events were refused: ${refusal.message}`);
      return {
        name,
        type: config.type,
        queue: status,
        offered,
        filtered,
        aggregated,
        ...counts,
        lost,
        lagSeconds: oldestMs === undefined ? 0 : Math.max(0, (now - oldestMs) / 1000),
        problems,
      };
    },
    async close() {
      clearInterval(aggregateTimer);
      clearInterval(lossTimer);
      if (aggregator !== undefined) flushAggregates();
      queue.flush();
      await loop.close();
      queue.close();
    },
  };
}
