// All exporters of an agent: follows the configuration, and hands every flow, process event and loss to each of them.
// Flows are read from the ring by one walk, so that a receiver that hangs costs the others nothing.
import { mkdirSync, readdirSync, statSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import type { FlowContext } from '../flows/flow-message.ts';
import type { FlowRing } from '../flows/flow-ring.ts';
import { type LossLog, LossSource } from '../flows/loss-log.ts';
import type { ProcessNews } from '../processes/process-events.ts';
import { type ExporterConfig, readExportConfig } from './export-config.ts';
import { type ExportEvent, lossSourceName, processRing } from './export-event.ts';
import { type Exporter, type ExporterStatus, startExporter } from './exporter.ts';
import type { Sink } from './sink.ts';

/** The exporters. */
export interface Exporters {
  status(): ExporterStatus[];
  /** Everything that is wrong, a line each. */
  problems(): string[];
  /** Files that were moved away are made anew. */
  reopen(): void;
  close(): Promise<void>;
}

/** Where exporters get their events. */
export interface ExportersOptions {
  readonly file: string;
  readonly context: FlowContext;
  readonly ring: FlowRing;
  readonly losses: LossLog;
  readonly processes: { subscribe(listener: (news: ProcessNews) => void): () => void } | undefined;
  /** Queues are kept under it. */
  readonly folder: string;
  readonly createSink: (config: ExporterConfig, onError: (message: string) => void) => Promise<Sink>;
  readonly log: {
    info(message: string, fields?: Record<string, unknown>): void;
    warn(message: string, fields?: Record<string, unknown>): void;
    error(message: string, fields?: Record<string, unknown>): void;
  };
  readonly reloadMs?: number;
}

/** Rows before others get their turn. */
const turnRows = 1_024;
const retryMs = 30_000;

/** Starts exporting. A configuration that cannot be used is a problem that is shown, and read again when it changes. */
export async function startExporters(options: ExportersOptions): Promise<Exporters> {
  const { file, context, ring, losses, folder, log, reloadMs = 2_000 } = options;
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  let exporters: Exporter[] = [];
  let configError: string | undefined;
  let configStamp = '';
  // What was read before is told, too.
  let seq = ring.oldest;
  let losses0 = 0;
  const lost = losses.reader(seq - 1);
  let walking = false;
  /** Exporters are being exchanged: flows wait in the ring for those that come. */
  let applying = false;
  let closed = false;
  let flushing = false;

  const stampOf = () => {
    const stat = statSync(file, { throwIfNoEntry: false });
    return stat === undefined ? 'none' : `${stat.ino} ${stat.mtimeMs} ${stat.size}`;
  };

  async function apply(configs: readonly ExporterConfig[]): Promise<void> {
    const kept = exporters.filter((each) => configs.some((config) => isDeepStrictEqual(config, each.config)));
    const ended = exporters.filter((each) => !kept.includes(each));
    exporters = kept;
    await Promise.all(ended.map((each) => each.close()));
    const problems: string[] = [];
    for (const config of configs) {
      if (kept.some((each) => each.config.name === config.name)) continue;
      try {
        const onError = (message: string) =>
          log.warn('an exporter has trouble', { exporter: config.name, error: message });
        const sink = await options.createSink(config, onError);
        try {
          exporters.push(startExporter({ config, context, folder, sink, warn: log.warn }));
        } catch (error) {
          await sink.close();
          throw error;
        }
        log.info('an exporter runs', { exporter: config.name, type: config.type });
      } catch (error) {
        problems.push(`exporter ${config.name} cannot run: ${(error as Error).message}`);
        log.error('an exporter cannot run', { exporter: config.name, error: (error as Error).message });
      }
    }
    configError = problems.length === 0 ? undefined : problems.join('; ');
    if (problems.length > 0) retryAtMs = performance.now() + retryMs;
    const unknown = readdirSync(folder).filter((name) => !configs.some((config) => config.name === name));
    if (unknown.length > 0)
      log.warn('queues of exporters that are no longer configured are kept: remove their folders, or configure them', {
        folder,
        names: unknown,
      });
  }

  /** What could not start, such as for a certificate that is not there yet, is tried again. */
  let retryAtMs = Number.POSITIVE_INFINITY;
  let reloading: Promise<void> | undefined;
  async function reload(): Promise<void> {
    const stamp = stampOf();
    if (stamp === configStamp && performance.now() < retryAtMs) return;
    configStamp = stamp;
    retryAtMs = Number.POSITIVE_INFINITY;
    applying = true;
    try {
      await apply(readExportConfig(file, context));
    } catch (error) {
      // What ran goes on: a mistake in a file must not end what works.
      configError = `the export configuration is not used: ${(error as Error).message.split('\n')[0]}`;
      log.error('the export configuration cannot be used: what ran before goes on', {
        error: (error as Error).message,
      });
    } finally {
      applying = false;
    }
    walk();
  }
  const reloadOnce = () => {
    reloading ??= reload().finally(() => {
      reloading = undefined;
    });
    return reloading;
  };

  function offer(event: ExportEvent): void {
    for (const each of exporters) each.offer(event);
  }

  function offerLoss(source: string, count: number, firstMs: number, lastMs: number): void {
    const id = `${context.run}-lost-${losses0++}`;
    offer({ kind: 'lost', loss: { source, count, firstMs, lastMs, id } });
  }

  /** Takes what is new, a turn at a time. */
  function walk(): void {
    if (walking || closed || applying) return;
    walking = true;
    try {
      takeTurn();
    } finally {
      // Also when a row could not be taken: those after it still can.
      walking = false;
    }
    if (seq === ring.next) return;
    walking = true;
    setImmediate(() => {
      walking = false;
      walk();
    });
  }

  function takeTurn(): void {
    for (let count = 0; count < turnRows && seq < ring.next; count++) {
      if (seq < ring.oldest) {
        const now = Date.now();
        losses.overtook(ring.oldest - seq);
        offerLoss(lossSourceName(LossSource.slowReader), ring.oldest - seq, now, now);
        seq = ring.oldest;
      }
      takeLosses();
      const row = ring.get(seq++);
      for (const each of exporters) each.offerFlow(row);
    }
    takeLosses();
    for (const each of exporters) each.flush();
  }

  function takeLosses(): void {
    for (let loss = lost.next(seq); loss !== undefined; loss = lost.next(seq))
      offerLoss(lossSourceName(loss.source), loss.count, loss.firstMs, loss.lastMs);
  }

  await reloadOnce();
  const stopRing = ring.subscribe(walk);
  const stopProcesses = options.processes?.subscribe((news) => {
    if (news.kind === 'lost') offerLoss(processRing, news.count, news.timeMs, news.timeMs);
    else offer({ kind: 'process', event: news });
    // Processes are told of one at a time; they are written together.
    if (flushing) return;
    flushing = true;
    setImmediate(() => {
      flushing = false;
      for (const each of exporters) each.flush();
    });
  });
  const timer = setInterval(() => void reloadOnce(), reloadMs);
  const statuses = () => exporters.map((each) => each.status());
  return {
    status: statuses,
    problems: () => [
      ...(configError === undefined ? [] : [configError]),
      ...statuses().flatMap((each) => each.problems),
    ],
    reopen() {
      for (const each of exporters) each.reopen();
    },
    async close() {
      clearInterval(timer);
      await reloading;
      stopRing();
      stopProcesses?.();
      while (seq < ring.next) takeTurn();
      closed = true;
      await Promise.all(exporters.map((each) => each.close()));
    },
  };
}
