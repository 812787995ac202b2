// A pod's first packet must not come before a policy that the API server had acknowledged when the pod was made. An ADD
// therefore asks which policies there are that may select the pod, and waits until this node has compiled them. They may
// select by the labels of its namespace, which are waited for in the same way.
import { deepEqual } from '../../core/equal.ts';
import type { LabelMap } from '../../core/labels.ts';
import { type NamespaceRow, type PolicyKind, policyKey } from '../../core/rows.ts';
import type { ReadTable } from '../../core/table.ts';
import { hasStatus, type KubeClient, type KubeList } from '../../kube/client.ts';
import { type KubeObject, kubernetesResources, type Resource, resourcePath } from '../../kube/resource.ts';

const askAgainMs = 300;

/** Waits for policies. */
export interface PolicyFence {
  /**
   * Resolves when every policy that the API server knows now for pods of a namespace is in this node's tables, and the
   * namespace's labels are; false when that takes longer than the deadline, or the API server does not say.
   */
  reached(namespace: string, timeoutMs: number): Promise<boolean>;
}

/** A version of a policy. */
export interface SeenPolicy {
  readonly key: string;
  readonly resourceVersion: string;
}

/** What the API server has. */
interface Wanted {
  readonly policies: readonly SeenPolicy[];
  readonly namespace?: { readonly name: string; readonly labels: LabelMap };
}

/** Makes the fence. `resources` are the kinds of policies that are followed. */
export function createPolicyFence(options: {
  readonly client: KubeClient;
  readonly resources: readonly Resource[];
  /** The newest version of each policy that is in this node's tables. */
  readonly seen: ReadTable<SeenPolicy>;
  readonly namespaces: ReadTable<NamespaceRow>;
  /** Why the API server did not say. */
  readonly onError?: (error: unknown) => void;
}): PolicyFence {
  const { client, resources, seen, namespaces } = options;
  /** Of each scope, the question under way and the one that begins after it: whoever comes meanwhile shares the second. */
  const asking = new Map<string, { now: Promise<Wanted>; next?: Promise<Wanted> }>();

  /** One question of each scope at a time. An answer counts for those who came before it was asked. */
  function ask(scope: string): Promise<Wanted> {
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

  function begin(scope: string): Promise<Wanted> {
    const now = fetchWanted(scope);
    const entry = { now };
    asking.set(scope, entry);
    const done = (): void => {
      if (asking.get(scope) === entry && (entry as { next?: unknown }).next === undefined) asking.delete(scope);
    };
    now.then(done, done);
    return now;
  }

  async function fetchWanted(namespace: string): Promise<Wanted> {
    const [lists, own] = await Promise.all([
      fetchPolicies(namespace),
      namespace === '' ? undefined : fetchNamespace(namespace),
    ]);
    return { policies: lists.flat(), ...(own !== undefined && { namespace: own }) };
  }

  async function fetchNamespace(name: string): Promise<Wanted['namespace']> {
    const list = await client.request<Partial<KubeList<KubeObject>>>(
      'GET',
      resourcePath(kubernetesResources.namespaces),
      {
        query: { fieldSelector: `metadata.name=${name}` },
        metadataOnly: 'list',
      },
    );
    const found = (list.items ?? []).find(({ metadata }) => metadata.name === name);
    return found && { name, labels: found.metadata.labels ?? {} };
  }

  function fetchPolicies(namespace: string): Promise<SeenPolicy[][]> {
    return Promise.all(
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
              resourceVersion: metadata.resourceVersion ?? '',
            }));
          } catch (error) {
            if (hasStatus(error, 404)) return []; // A kind that this API server does not have.
            throw error;
          }
        }),
    );
  }

  function isMissing({ policies, namespace }: Wanted): boolean {
    // Versions tell also whether another object of the name came after this one, or went before it.
    if (policies.some(({ key, resourceVersion }) => isOlder(seen.get(key)?.resourceVersion, resourceVersion)))
      return true;
    return namespace !== undefined && !deepEqual(namespaces.get(namespace.name)?.labels, namespace.labels);
  }

  return {
    async reached(namespace, timeoutMs) {
      const deadline = Date.now() + timeoutMs;
      while (Date.now() < deadline) {
        let wanted: Wanted[];
        try {
          const left = deadline - Date.now();
          wanted = await within(Promise.all([ask(namespace), ask('')]), left);
        } catch (error) {
          options.onError?.(error);
          return false;
        }
        // One that was deleted meanwhile never comes: after a while without news it is asked again what there is.
        do {
          wanted = wanted.filter(isMissing);
          if (wanted.length === 0) return true;
        } while (await changeOf([seen, namespaces], Math.min(askAgainMs, deadline - Date.now())));
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

/** Resolves with the next change of one of the tables, or with false after a while. */
function changeOf(tables: readonly { subscribe(call: () => void): () => void }[], timeoutMs: number): Promise<boolean> {
  if (timeoutMs <= 0) return Promise.resolve(false);
  return new Promise((resolve) => {
    const end = (changed: boolean): void => {
      clearTimeout(timer);
      for (const stop of stops) stop();
      resolve(changed);
    };
    const timer = setTimeout(end, timeoutMs, false);
    const stops = tables.map((table) => table.subscribe(() => end(true)));
  });
}

function within<T>(promise: Promise<T>, timeoutMs: number): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('too late')), timeoutMs);
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
