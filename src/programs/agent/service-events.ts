// What is refused or ignored of a Service is a Kubernetes Event on it. Every node finds the same, so the event's name follows
// from its text: the first node writes it, for the others it is there already.
import { hash32 } from '../../connect/services/maglev.ts';
import type { ServiceRow } from '../../core/rows.ts';
import { hasStatus } from '../../kube/client.ts';
import type { KubeObject } from '../../kube/resource.ts';

/** Tells of problems. */
export interface ServiceEvents {
  /** These are the problems of a Service now. Each text is told once for as long as it holds. */
  tell(service: ServiceRow, problems: readonly string[]): void;
  forget(service: string): void;
  stop(): void;
}

const firstRetryMs = 1_000;
const lastRetryMs = 5 * 60_000;
/** A Service with a thousand bad endpoints has one problem, not a thousand. */
const textsPerService = 20;
const maxMessage = 1_000;

/** `create` writes an Event; while it fails nothing is lost, and it is asked less and less often. */
export function createServiceEvents(options: {
  readonly create: (event: KubeObject) => Promise<unknown>;
  readonly onError: (error: unknown) => void;
  readonly firstRetryMs?: number;
}): ServiceEvents {
  const told = new Map<string, Set<string>>();
  const waiting: { service: ServiceRow; text: string }[] = [];
  let timer: NodeJS.Timeout | undefined;
  let working = false;
  let stopped = false;
  let forbidden = false;
  let retryMs = options.firstRetryMs ?? firstRetryMs;

  async function work(): Promise<void> {
    if (working || timer !== undefined) return;
    working = true;
    for (let next = waiting[0]; next !== undefined && !stopped; next = waiting[0]) {
      try {
        if (told.get(next.service.key)?.has(next.text)) {
          await options.create(eventOf(next.service, next.text));
          retryMs = options.firstRetryMs ?? firstRetryMs;
        }
      } catch (error) {
        // 409: another node was first. 404 and 403: the namespace is about to go, or the agent may not.
        if (hasStatus(error, 403) && !forbidden) options.onError(error);
        forbidden ||= hasStatus(error, 403);
        if (![403, 404, 409].some((status) => hasStatus(error, status))) {
          if (retryMs === (options.firstRetryMs ?? firstRetryMs)) options.onError(error);
          timer = setTimeout(() => {
            timer = undefined;
            void work();
          }, retryMs);
          timer.unref();
          retryMs = Math.min(lastRetryMs, retryMs * 2);
          break;
        }
      }
      waiting.shift();
    }
    working = false;
  }

  return {
    tell(service, problems) {
      const before = told.get(service.key);
      if (problems.length === 0) {
        if (before !== undefined) told.delete(service.key);
        return;
      }
      const now = new Set(problems.slice(0, textsPerService));
      told.set(service.key, now);
      for (const text of now) if (!before?.has(text)) waiting.push({ service, text });
      void work();
    },
    forget: (service) => void told.delete(service),
    stop() {
      stopped = true;
      clearTimeout(timer);
    },
  };
}

function eventOf(service: ServiceRow, text: string): KubeObject {
  const { name, namespace, uid } = service;
  const now = new Date().toISOString().replace(/\.\d+Z$/, 'Z');
  const hash = (hash32(uid + text, 1) * 2 ** 20 + (hash32(uid + text, 2) >>> 12)).toString(16);
  return {
    apiVersion: 'v1',
    kind: 'Event',
    metadata: { name: `${name}.weir-${hash}`, namespace },
    involvedObject: { apiVersion: 'v1', kind: 'Service', name, namespace, uid },
    type: 'Warning',
    reason: 'Ignored',
    message: text.slice(0, maxMessage),
    source: { component: 'weir-agent' },
    firstTimestamp: now,
    lastTimestamp: now,
    count: 1,
  } as KubeObject;
}
