// Lists a collection and then follows it, for ever: reconnects, resumes where it was, lists again when the server has
// forgotten. What it learns goes into a handler, or straight into a table.
import type { Table } from '../core/table.ts';
import { hasStatus, type KubeClient, type KubeList } from './client.ts';
import { type KubeObject, type Resource, resourcePath } from './resource.ts';

/** Receives what a watch learns. `list` replaces everything known. */
export interface WatchHandler<T> {
  list(items: readonly T[]): void;
  upsert(item: T): void;
  delete(item: T): void;
}

/** How a watch is doing. `error` is why it does not follow at the moment. */
export interface WatchState {
  readonly resource: string;
  readonly connected: boolean;
  readonly listed: boolean;
  readonly error?: string;
  readonly lastEventMs?: number;
}

/** A running watch. */
export interface Watch {
  state(): WatchState;
  stop(): void;
}

/** Which objects to follow. */
export interface WatchOptions {
  readonly namespace?: string;
  readonly labelSelector?: string;
  readonly fieldSelector?: string;
  /** A kind that the API server may not have (yet): then there are no objects of it, and that is no error. */
  readonly optional?: boolean;
  /** Told whenever the state changes between connected and not. */
  readonly onState?: (state: WatchState) => void;
}

const pageSize = 500;
const minBackoffMs = 100;
const maxBackoffMs = 5_000;
/** How often a kind that the API server does not have is looked for. */
const absentPauseMs = 2_000;
/** A kind that was there is believed to be gone when it is not found this often in a row: proxies say so by mistake too. */
const absencesBelieved = 3;
/** The server ends a watch after this; it keeps connections from going stale unseen. */
const watchSeconds = 290;

/** Follows a collection until stopped. */
export function watch<T extends KubeObject>(
  client: KubeClient,
  resource: Resource,
  handler: WatchHandler<T>,
  options: WatchOptions = {},
): Watch {
  const stop = new AbortController();
  const path = resourcePath(resource, options.namespace);
  const selectors = { labelSelector: options.labelSelector, fieldSelector: options.fieldSelector };
  let state: WatchState = { resource: resource.plural, connected: false, listed: false };
  /** Where to go on; undefined: list again. It moves with every event, so that none comes twice: what an object was
   * before must not come back, not even for a moment. */
  let version: string | undefined;
  let failures = 0;
  let absences = absencesBelieved;

  function setState(change: Partial<WatchState>): void {
    const before = state;
    state = { ...state, ...change };
    if (before.connected !== state.connected || before.error !== state.error || before.listed !== state.listed)
      options.onState?.(state);
  }

  async function list(): Promise<string> {
    const items: T[] = [];
    let token: string | undefined;
    for (;;) {
      const page: KubeList<T> = await client.request('GET', path, {
        query: { ...selectors, limit: pageSize, continue: token },
        signal: stop.signal,
      });
      items.push(...page.items);
      token = page.metadata.continue || undefined;
      if (token === undefined) {
        handler.list(items);
        absences = 0;
        setState({ listed: true, connected: true, error: undefined, lastEventMs: Date.now() });
        return page.metadata.resourceVersion;
      }
    }
  }

  /** Follows until the stream ends. */
  async function follow(from: string): Promise<void> {
    const stream = await client.stream(path, {
      query: {
        ...selectors,
        watch: true,
        resourceVersion: from,
        allowWatchBookmarks: true,
        timeoutSeconds: watchSeconds,
      },
      signal: stop.signal,
    });
    setState({ connected: true, error: undefined });
    stream.setEncoding('utf8');
    let rest = '';
    for await (const chunk of stream) {
      rest += chunk;
      let start = 0;
      for (let end = rest.indexOf('\n'); end >= 0; end = rest.indexOf('\n', start)) {
        const event = JSON.parse(rest.slice(start, end)) as {
          type: string;
          object: T & { code?: number; message?: string };
        };
        start = end + 1;
        if (event.type === 'ERROR') {
          if (event.object.code === 410) version = undefined;
          if (version === undefined) return;
          throw new Error(event.object.message ?? 'the watch failed');
        }
        version = event.object.metadata.resourceVersion ?? version;
        failures = 0;
        if (event.type === 'DELETED') handler.delete(event.object);
        else if (event.type !== 'BOOKMARK') handler.upsert(event.object);
        state = { ...state, lastEventMs: Date.now() };
      }
      rest = rest.slice(start);
    }
  }

  async function run(): Promise<void> {
    while (!stop.signal.aborted) {
      try {
        version ??= await list();
        await follow(version);
      } catch (error) {
        if (stop.signal.aborted) return;
        if (hasStatus(error, 410)) version = undefined;
        if (options.optional && hasStatus(error, 404)) {
          version = undefined;
          if (++absences < absencesBelieved) {
            setState({ connected: false, error: (error as Error).message });
          } else {
            handler.list([]);
            setState({ listed: true, connected: true, error: undefined });
          }
          await pause(absentPauseMs * (0.5 + Math.random() / 2), stop.signal);
          continue;
        }
        setState({ connected: false, error: (error as Error).message });
        const backoffMs = Math.min(maxBackoffMs, minBackoffMs * 2 ** failures++);
        await pause(backoffMs * (0.5 + Math.random() / 2), stop.signal);
      }
    }
  }

  void run();
  return { state: () => state, stop: () => stop.abort() };
}

/** Keeps a table equal to a collection. `toRow` answers undefined for objects that are not to be there. */
export function watchIntoTable<T extends KubeObject, R>(
  client: KubeClient,
  resource: Resource,
  // biome-ignore lint/suspicious/noExplicitAny: indexes do not matter here
  table: Table<R, any>,
  toRow: (object: T) => R | undefined,
  options?: WatchOptions,
  /** Told of the same objects, for what else they say. */
  also?: WatchHandler<T>,
): Watch {
  const keys = new Map<string, ReturnType<typeof table.keyOf>>();
  const nameOf = (object: T) => `${object.metadata.namespace ?? ''}/${object.metadata.name}`;
  return watch<T>(
    client,
    resource,
    {
      list(items) {
        keys.clear();
        const rows: R[] = [];
        for (const item of items) {
          const row = toRow(item);
          if (row === undefined) continue;
          keys.set(nameOf(item), table.keyOf(row));
          rows.push(row);
        }
        table.replaceAll(rows);
        table.markInitialized();
        also?.list(items);
      },
      upsert(item) {
        also?.upsert(item);
        const row = toRow(item);
        const before = keys.get(nameOf(item));
        table.batch(() => {
          if (before !== undefined && (row === undefined || table.keyOf(row) !== before)) table.delete(before);
          if (row !== undefined) {
            keys.set(nameOf(item), table.keyOf(row));
            table.upsert(row);
          } else keys.delete(nameOf(item));
        });
      },
      delete(item) {
        also?.delete(item);
        const before = keys.get(nameOf(item));
        if (before === undefined) return;
        keys.delete(nameOf(item));
        table.delete(before);
      },
    },
    options,
  );
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', done);
  });
}
