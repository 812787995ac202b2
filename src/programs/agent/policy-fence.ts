// A pod's first packet must not come before a policy that the API server had acknowledged when the pod was made. An ADD
// therefore asks which policies there are that may select the pod, and waits until this node has compiled them.
import { type PolicyKind, type PolicyObjectRow, policyKey } from '../../core/rows.ts';
import type { ReadTable } from '../../core/table.ts';
import { hasStatus, type KubeClient, type KubeList } from '../../kube/client.ts';
import { type KubeObject, type Resource, resourcePath } from '../../kube/resource.ts';

const askAgainMs = 300;

/** Waits for policies. */
export interface PolicyFence {
  /**
   * Resolves when every policy that the API server knows now for pods of a namespace is in this node's tables; false
   * when that takes longer than the deadline, or the API server does not say.
   */
  reached(namespace: string, timeoutMs: number): Promise<boolean>;
}

/** What a policy was when the API server was asked. */
interface Wanted {
  readonly key: string;
  readonly uid: string;
  readonly resourceVersion: string;
}

/** Makes the fence. `resources` are the kinds of policies that `objects` follows. */
export function createPolicyFence(options: {
  readonly client: KubeClient;
  readonly resources: readonly Resource[];
  readonly objects: ReadTable<PolicyObjectRow>;
  /** Why the API server did not say. */
  readonly onError?: (error: unknown) => void;
}): PolicyFence {
  const { client, resources, objects } = options;
  /** Of each scope, the question under way and the one that begins after it: whoever comes meanwhile shares the second. */
  const asking = new Map<string, { now: Promise<Wanted[]>; next?: Promise<Wanted[]> }>();

  /** One question of each scope at a time. An answer counts for those who came before it was asked. */
  function ask(scope: string): Promise<Wanted[]> {
    const running = asking.get(scope);
    if (running !== undefined) {
      running.next ??= running.now.then(
        () => begin(scope),
        () => begin(scope),
      );
      return running.next;
    }
    return begin(scope);
  }

  function begin(scope: string): Promise<Wanted[]> {
    const now = fetchWanted(scope);
    const entry = { now };
    asking.set(scope, entry);
    const done = (): void => {
      if (asking.get(scope) === entry && (entry as { next?: unknown }).next === undefined) asking.delete(scope);
    };
    now.then(done, done);
    return now;
  }

  async function fetchWanted(namespace: string): Promise<Wanted[]> {
    const lists = await Promise.all(
      resources
        .filter((resource) => resource.namespaced === (namespace !== ''))
        .map(async (resource) => {
          try {
            const list = await client.request<Partial<KubeList<KubeObject>>>(
              'GET',
              resourcePath(resource, namespace === '' ? undefined : namespace),
              { metadataOnly: 'list' },
            );
            // An empty list of metadata is null.
            return (list.items ?? []).map(({ metadata }) => ({
              key: policyKey(resource.kind as PolicyKind, metadata.namespace ?? '', metadata.name),
              uid: metadata.uid ?? '',
              resourceVersion: metadata.resourceVersion ?? '',
            }));
          } catch (error) {
            if (hasStatus(error, 404)) return []; // A kind that this API server does not have.
            throw error;
          }
        }),
    );
    return lists.flat();
  }

  function missing(wanted: readonly Wanted[]): Wanted[] {
    return wanted.filter(({ key, uid, resourceVersion }) => {
      const row = objects.get(key);
      // Another object of the name is newer still, or the watch has not told of this one's end.
      if (row === undefined) return true;
      return row.uid === uid && isOlder(row.resourceVersion, resourceVersion);
    });
  }

  return {
    async reached(namespace, timeoutMs) {
      const deadline = Date.now() + timeoutMs;
      while (Date.now() < deadline) {
        let wanted: Wanted[];
        try {
          const left = deadline - Date.now();
          wanted = (await within(Promise.all([ask(namespace), ask('')]), left)).flat();
        } catch (error) {
          options.onError?.(error);
          return false;
        }
        // One that was deleted meanwhile never comes: after a while without news it is asked again what there is.
        do {
          wanted = missing(wanted);
          if (wanted.length === 0) return true;
        } while (await changeOf(objects, Math.min(askAgainMs, deadline - Date.now())));
      }
      return false;
    },
  };
}

/** Versions count up, and are numbers; where they are not, only the same one is reached. */
function isOlder(have: string | undefined, want: string): boolean {
  if (have === want) return false;
  if (have === undefined || !/^\d+$/.test(have) || !/^\d+$/.test(want)) return true;
  return BigInt(have) < BigInt(want);
}

/** Resolves with the next change of a table, or with false after a while. */
function changeOf(table: ReadTable<unknown>, timeoutMs: number): Promise<boolean> {
  if (timeoutMs <= 0) return Promise.resolve(false);
  return new Promise((resolve) => {
    const end = (changed: boolean): void => {
      clearTimeout(timer);
      stop();
      resolve(changed);
    };
    const timer = setTimeout(end, timeoutMs, false);
    const stop = table.subscribe(() => end(true));
  });
}

function within<T>(promise: Promise<T>, timeoutMs: number): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('too late')), timeoutMs);
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
