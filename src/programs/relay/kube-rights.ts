// What somebody may see by the word of the cluster: FlowAccess objects, which are followed, and roles, for which the API
// server is asked namespace by namespace. What is granted is asked again every few seconds; what is not, less often where
// there are many namespaces.
import { errorText } from '../../core/errors.ts';
import type { LabelMap } from '../../core/labels.ts';
import type { KubeClient } from '../../kube/client.ts';
import { type KubeObject, kubernetesResources } from '../../kube/resource.ts';
import { type WatchState, watch } from '../../kube/watch.ts';
import { weirResources } from '../../kube/weir/schemas.ts';
import { type AccessUser, type FlowGrantRow, grantsOf, parseFlowAccess } from '../../observe/access/flow-access.ts';
import { type AccessRights, type AccessVerb, addGrants, type NamespaceRights } from '../../observe/access/rights.ts';
import { RpcCode, RpcError } from '../../observe/rpc/rpc-status.ts';

/** Says what users may see. */
export interface RightsSource {
  /** Throws UNAVAILABLE when it cannot be found out. */
  rights(user: AccessUser): Promise<AccessRights>;
  /** Told when something changed that may matter to anybody. */
  subscribe(listener: () => void): () => void;
  close(): void;
}

/** Asks whether a user may `get` what flows of a namespace stand for; '' for all namespaces. */
export type ReviewAccess = (user: AccessUser, verb: AccessVerb, namespace: string) => Promise<boolean>;

const grantedMs = 5_000;
/** Of each namespace that is not granted; but no less than `grantedMs` in all. */
const deniedMsPerNamespace = 50;
const reviewsAtOnce = 16;
const maxUsers = 1_024;
const listedMs = 5_000;
/** What is followed may have changed unseen for so long. */
const staleMs = 30_000;

/** Makes it over an API server. */
export function kubeRights(options: {
  readonly client: KubeClient;
  readonly onProblem: (message: string, fields: Record<string, unknown>) => void;
}): RightsSource {
  const { client, onProblem } = options;
  const grants = new Map<string, FlowGrantRow>();
  const namespaces = new Map<string, LabelMap>();
  const listeners = new Set<() => void>();
  const tell = () => {
    for (const listener of [...listeners]) listener();
  };
  const follow = <T extends KubeObject>(
    resource: Parameters<typeof watch>[1],
    set: (object: T) => void,
    rows: Map<string, unknown>,
    optional: boolean,
  ) => {
    const seen = { listed: false, connected: false, sinceMs: Date.now() };
    const watching = watch<T>(
      client,
      resource,
      {
        list(objects) {
          rows.clear();
          for (const object of objects) set(object);
          tell();
        },
        upsert(object) {
          set(object);
          tell();
        },
        delete({ metadata }) {
          rows.delete(metadata.name);
          tell();
        },
      },
      {
        optional,
        onState({ connected, listed, error }: WatchState) {
          if (seen.connected !== connected) seen.sinceMs = Date.now();
          Object.assign(seen, { connected, listed });
          if (error !== undefined) onProblem('who may see what is not followed', { resource: resource.plural, error });
          tell();
        },
      },
    );
    return { seen, stop: () => watching.stop() };
  };
  const followed = [
    follow<KubeObject>(
      weirResources.flowAccesses,
      (object) => {
        const parsed = parseFlowAccess(object);
        if ('row' in parsed) grants.set(object.metadata.name, parsed.row);
        else {
          grants.delete(object.metadata.name);
          onProblem('a FlowAccess grants nothing', { name: object.metadata.name, reason: parsed.problem });
        }
      },
      grants,
      true,
    ),
    follow<KubeObject>(
      kubernetesResources.namespaces,
      ({ metadata }) => namespaces.set(metadata.name, metadata.labels ?? {}),
      namespaces,
      false,
    ),
  ];
  const stale = () => followed.some(({ seen }) => !seen.connected && Date.now() - seen.sinceMs > staleMs);
  const listed = () => followed.every(({ seen }) => seen.listed);

  async function known(): Promise<void> {
    for (const untilMs = Date.now() + listedMs; !listed() && Date.now() < untilMs; )
      await new Promise((resolve) => setTimeout(resolve, 20));
    if (!listed() || stale())
      throw new RpcError(RpcCode.unavailable, 'who may see what cannot be read from the API server');
  }

  const roles = reviewedRoles(kubernetesAccess(client));
  return {
    async rights(user) {
      await known();
      const byRole = await roles(user, [...namespaces.keys()]);
      return rightsOf(user, [...grants.values()], namespaces, byRole);
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    close() {
      for (const { stop } of followed) stop();
    },
  };
}

/** Adds up FlowAccess objects and what roles grant, which is without redactions. */
export function rightsOf(
  user: AccessUser,
  grants: readonly FlowGrantRow[],
  namespaces: ReadonlyMap<string, LabelMap>,
  byRole: ReadonlyMap<string, readonly AccessVerb[]>,
): AccessRights {
  const names = new Set([...namespaces.keys(), ...grants.flatMap((each) => each.namespaces)]);
  const rights = new Map<string, NamespaceRights>();
  for (const name of names) {
    const given = grantsOf(grants, user, name, namespaces.get(name));
    const verbs = byRole.get(name) ?? [];
    if (verbs.length > 0) given.push({ verbs, redactions: [] });
    const own = addGrants(given);
    if (own !== undefined) rights.set(name, own);
  }
  return rights;
}

type Roles = ReadonlyMap<string, readonly AccessVerb[]>;

/** What roles grant by namespace. Answers are remembered; `nowMs` is for tests. */
export function reviewedRoles(
  review: ReviewAccess,
  nowMs: () => number = Date.now,
): (user: AccessUser, namespaces: readonly string[]) => Promise<Roles> {
  type Answers = Map<string, { allowed: boolean; atMs: number }>;
  const users = new Map<string, { answers: Answers; running: Promise<Roles> | undefined }>();
  let free = reviewsAtOnce;
  const waiting: (() => void)[] = [];

  async function ask(user: AccessUser, answers: Answers, verb: AccessVerb, namespace: string, deniedMs: number) {
    const key = `${verb} ${namespace}`;
    const before = answers.get(key);
    if (before !== undefined && nowMs() - before.atMs < (before.allowed ? grantedMs : deniedMs)) return before.allowed;
    if (free === 0) await new Promise<void>((resolve) => waiting.push(resolve));
    else free--;
    try {
      const atMs = nowMs();
      const allowed = await review(user, verb, namespace);
      answers.set(key, { allowed, atMs });
      return allowed;
    } finally {
      const next = waiting.shift();
      if (next === undefined) free++;
      else next();
    }
  }

  async function roles(user: AccessUser, answers: Answers, namespaces: readonly string[]): Promise<Roles> {
    const deniedMs = Math.max(grantedMs, deniedMsPerNamespace * namespaces.length);
    const may = async (verb: AccessVerb, among: readonly string[]): Promise<Set<string>> => {
      if (await ask(user, answers, verb, '', grantedMs)) return new Set(among);
      const each = await Promise.all(
        among.map(async (namespace) => ({
          namespace,
          allowed: await ask(user, answers, verb, namespace, deniedMs),
        })),
      );
      return new Set(each.flatMap(({ namespace, allowed }) => (allowed ? [namespace] : [])));
    };
    const [flows, processes] = [await may('flows', namespaces), await may('processes', namespaces)];
    return new Map(
      namespaces.map((namespace) => [
        namespace,
        [
          ...(flows.has(namespace) ? (['flows'] as const) : []),
          ...(processes.has(namespace) ? (['processes'] as const) : []),
        ],
      ]),
    );
  }

  return (user, namespaces) => {
    const key = JSON.stringify([user.name, user.uid, user.groups, user.extra]);
    const entry = users.get(key) ?? { answers: new Map(), running: undefined };
    users.delete(key);
    users.set(key, entry);
    if (users.size > maxUsers) users.delete(users.keys().next().value!);
    entry.running ??= roles(user, entry.answers, namespaces).finally(() => {
      entry.running = undefined;
    });
    return entry.running;
  };
}

function kubernetesAccess(client: KubeClient): ReviewAccess {
  return async (user, verb, namespace) => {
    try {
      const { status } = await client.request<{ status?: { allowed?: boolean } }>(
        'POST',
        '/apis/authorization.k8s.io/v1/subjectaccessreviews',
        {
          body: {
            apiVersion: 'authorization.k8s.io/v1',
            kind: 'SubjectAccessReview',
            spec: {
              user: user.name,
              groups: user.groups,
              uid: user.uid,
              extra: user.extra,
              resourceAttributes: { group: 'weir.dev', resource: verb, verb: 'get', namespace },
            },
          },
          timeoutMs: 5_000,
        },
      );
      return status?.allowed === true;
    } catch (error) {
      throw new RpcError(RpcCode.unavailable, `the API server does not say what may be seen: ${errorText(error)}`);
    }
  };
}
