// Holds for each call and each stream that runs: who it is, what that one may see, and that both are so still.
import { randomBytes } from 'node:crypto';
import type { AccessUser } from '../../observe/access/flow-access.ts';
import { createFlowSight, hiddenUuids } from '../../observe/access/flow-sight.ts';
import { createProcessSight, processNamespaces } from '../../observe/access/process-sight.ts';
import { type AccessRights, noRights, rightsKey } from '../../observe/access/rights.ts';
import { clusterName } from '../../observe/flows/filter-values.ts';
import { everythingViewer, type GrantListener, type RelayAccess } from '../../observe/relay/relay-access.ts';
import type { RpcCall } from '../../observe/rpc/rpc-service.ts';
import { RpcCode, RpcError } from '../../observe/rpc/rpc-status.ts';
import type { Authenticate } from './authenticate.ts';
import type { RightsSource } from './kube-rights.ts';

/** What it is made of. */
export interface EnforceOptions {
  readonly authenticate: Authenticate;
  readonly source: Pick<RightsSource, 'rights' | 'subscribe'>;
  /** Whose members, and users of that name, see everything. */
  readonly admins: readonly string[];
  /** Told of each refusal: who, and why. */
  readonly onRefused: (who: { readonly user: string; readonly address: string }, reason: string) => void;
  /** For tests: how often a stream is looked at again, and how long it goes on when that cannot be done. */
  readonly everyMs?: number;
  readonly graceMs?: number;
}

/** What is known of a caller. */
interface Standing {
  readonly user: AccessUser;
  readonly everything: boolean;
  readonly rights: AccessRights;
}

function noProcesses(user: string): string {
  return `user ${JSON.stringify(user)} may see the processes of no namespace; grant it with the verb processes of a FlowAccess, or a role for get of flows.weir.dev and processes.weir.dev`;
}

/** Makes the check. */
export function enforceAccess(options: EnforceOptions): RelayAccess {
  const { authenticate, source, admins, onRefused, everyMs = 2_000, graceMs = 30_000 } = options;
  const uuidOf = hiddenUuids(randomBytes(16).toString('hex'));

  function refuse(user: string, { peer }: RpcCall, code: number, reason: string): RpcError {
    onRefused({ user, address: peer.address }, reason);
    return new RpcError(code, reason);
  }

  /** What stands of a caller now; `deny` makes the error, and may tell of it. */
  async function standingOf(call: RpcCall, deny: typeof refuse): Promise<Standing> {
    let user: AccessUser;
    try {
      user = await authenticate(call);
    } catch (error) {
      const { code = RpcCode.internal, message } = error as RpcError;
      throw deny(call.peer.name ?? '', call, code, message);
    }
    const { name, groups } = user;
    if (admins.some((admin) => admin === name || groups.includes(admin)))
      return { user, everything: true, rights: noRights };
    let rights: AccessRights;
    try {
      rights = await source.rights(user);
    } catch (error) {
      const { code = RpcCode.internal, message } = error as RpcError;
      throw deny(name, call, code, message);
    }
    if (rights.size === 0)
      throw deny(
        name,
        call,
        RpcCode.permissionDenied,
        `user ${JSON.stringify(name)} may see no namespace; grant it with a FlowAccess, or a role for get of flows.weir.dev`,
      );
    return { user, everything: false, rights };
  }

  /** Looks again and again at who calls; what is so now is told, and what is so no more ends it. */
  function watchOver(call: RpcCall, first: Standing, set: (now: Standing) => boolean, listener: GrantListener) {
    let over = false;
    let goodMs = Date.now();
    let looking = false;
    let again = false;
    async function look(): Promise<void> {
      again = looking;
      if (looking || over) return;
      looking = true;
      try {
        const now = await standingOf(call, (_user, _call, code, reason) => new RpcError(code, reason));
        if (over) return;
        goodMs = Date.now();
        if (now.everything !== first.everything || now.user.name !== first.user.name)
          end(new RpcError(RpcCode.aborted, 'what may be seen has changed: ask again'));
        else if (set(now)) listener.changed();
      } catch (error) {
        const known =
          error instanceof RpcError ? error : new RpcError(RpcCode.internal, 'what may be seen is not known');
        const passing = known.code === RpcCode.unavailable || known.code === RpcCode.resourceExhausted;
        if (!passing || Date.now() - goodMs > graceMs) end(known);
      } finally {
        looking = false;
        if (again) void look();
      }
    }
    function end(error: RpcError): void {
      stop();
      // Looking again tells nobody; that a stream ends for it is told once.
      onRefused({ user: first.user.name, address: call.peer.address }, error.message);
      listener.ended(error);
    }
    const timer = setInterval(look, everyMs);
    timer.unref();
    const unsubscribe = source.subscribe(() => void look());
    function stop(): void {
      over = true;
      clearInterval(timer);
      unsubscribe();
    }
    // Between the first look and this one something may have changed.
    void look();
    return stop;
  }

  return {
    async viewer(call) {
      // The socket is root's.
      if (call.peer.address === '') return everythingViewer();
      const first = await standingOf(call, refuse);
      if (first.everything) return everythingViewer((listener) => watchOver(call, first, () => false, listener));
      let { rights } = first;
      const { name } = first.user;
      /** Follows the rights; `stillSees` throws when what is left of them shows nothing. */
      const following =
        (stillSees: (now: AccessRights) => void) =>
        (listener: GrantListener): (() => void) =>
          watchOver(
            call,
            first,
            (now) => {
              if (rightsKey(now.rights) === rightsKey(rights)) return false;
              stillSees(now.rights);
              rights = now.rights;
              return true;
            },
            {
              changed: listener.changed,
              ended(error) {
                rights = noRights;
                listener.ended(error);
              },
            },
          );
      return {
        everything: false,
        flows(request) {
          const sight = createFlowSight({ request, rights: () => rights, uuidOf });
          return { request: sight.request, show: sight.show, follow: following(() => {}) };
        },
        processes(request) {
          if (processNamespaces(rights).length === 0)
            throw refuse(name, call, RpcCode.permissionDenied, noProcesses(name));
          const sight = createProcessSight({ request, rights: () => rights });
          return {
            request: sight.request,
            show: sight.show,
            showProcess: sight.showProcess,
            follow: following((now) => {
              if (processNamespaces(now).length === 0) throw new RpcError(RpcCode.permissionDenied, noProcesses(name));
            }),
          };
        },
        namespace: (of, namespace) => of === clusterName && rights.has(namespace),
        requireEverything(what) {
          throw refuse(
            first.user.name,
            call,
            RpcCode.permissionDenied,
            `${what} speaks of all namespaces: user ${JSON.stringify(first.user.name)} is in none of ${admins.join(', ')}`,
          );
        },
      };
    },
  };
}
