// Takes off a node what an agent has put there. What is there is found by looking, not remembered: a second run finds
// nothing, and one that was interrupted is finished by the next.
import { existsSync, readdirSync, rmdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { WeirError } from '../../core/errors.ts';
import { lockFolder } from '../../kernel/folder-lock.ts';
import { deleteLink, listLinks } from '../../kernel/links.ts';
import { openNetlink } from '../../kernel/netlink.ts';
import { deleteRoute, listRoutes, RouteProtocol } from '../../kernel/routes.ts';
import { detachClsact, listFilters } from '../../kernel/tc-filter.ts';

/** Where an agent has put things, as it was told itself. */
export interface CleanupOptions {
  readonly bpffs: string;
  readonly runDir: string;
  readonly stateDir: string;
  readonly cniBinDir: string;
  readonly cniConfDir: string;
  /** Also what outlives restarts: addresses and numbers of pods. */
  readonly state: boolean;
  /** Also while an agent runs. */
  readonly force: boolean;
  readonly dryRun: boolean;
}

/** A thing that is there, and how it goes. */
interface Leftover {
  readonly text: string;
  remove(): void;
}

/** Removes everything, or only says what there is. Answers with a line for each thing. */
export async function cleanNode(options: CleanupOptions): Promise<string[]> {
  if (process.getuid?.() !== 0) throw new WeirError('NOT_ROOT', 'only root can take programs out of the kernel');
  const pins = join(options.bpffs, 'weir');
  const lock = existsSync(pins) ? await lockFolder(pins, 0) : undefined;
  if (existsSync(pins) && lock === undefined && !options.force && !options.dryRun)
    throw new WeirError(
      'AGENT_RUNNING',
      `it holds ${pins}, and would put back what is taken away`,
      'End the agent first; --force removes all the same.',
    );
  const netlink = openNetlink();
  try {
    const found = [...files(options), ...filters(netlink), ...routes(netlink), ...folders(options), ...links(netlink)];
    if (!options.dryRun) for (const each of found) each.remove();
    return found.map((each) => each.text);
  } finally {
    netlink.close();
    lock?.close();
  }
}

type Netlink = ReturnType<typeof openNetlink>;

function atPath(path: string, what: string): Leftover[] {
  if (!existsSync(path)) return [];
  return [{ text: `${what} ${path}`, remove: () => rmSync(path, { recursive: true, force: true }) }];
}

/** A folder may be a mount point, which stays, empty. */
function contentsOf(folder: string, what: string): Leftover[] {
  if (!existsSync(folder) || readdirSync(folder).length === 0) return [];
  const remove = () => {
    for (const name of readdirSync(folder)) rmSync(join(folder, name), { recursive: true, force: true });
    try {
      rmdirSync(folder);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EBUSY') throw error;
    }
  };
  return [{ text: `${what} ${folder}`, remove }];
}

/** First of all: while the configuration is there, the runtime starts pods. */
function files(options: CleanupOptions): Leftover[] {
  return [
    ...atPath(join(options.cniConfDir, '05-weir.conflist'), 'network configuration'),
    ...atPath(join(options.cniBinDir, 'weir-cni'), 'plugin'),
  ];
}

/** Kernels without tcx have a filter on each device; with tcx the hooks go with their pins. */
function filters(netlink: Netlink): Leftover[] {
  return listLinks(netlink)
    .filter((link) => !isOurs(link.name))
    .flatMap(({ ifindex, name }) =>
      (['ingress', 'egress'] as const).flatMap((direction) =>
        listFilters(netlink, ifindex, direction)
          .filter((filter) => filter.name === 'weir')
          .map(({ priority }) => ({
            text: `filter on ${name}`,
            remove: () => void detachClsact(netlink, { ifindex, direction, priority }),
          })),
      ),
    );
}

function routes(netlink: Netlink): Leftover[] {
  return listRoutes(netlink, { protocol: RouteProtocol.weir }).map((route) => ({
    text: `route ${route.dst}`,
    remove: () =>
      void deleteRoute(netlink, {
        dst: route.dst,
        ifindex: route.ifindex,
        table: route.table,
        protocol: RouteProtocol.weir,
      }),
  }));
}

function folders(options: CleanupOptions): Leftover[] {
  const pins = join(options.bpffs, 'weir');
  const pinned = (name: string) => {
    const folder = join(pins, name);
    return existsSync(folder) ? readdirSync(folder).length : 0;
  };
  return [
    ...['links', 'sockets', 'maps']
      .filter((name) => pinned(name) > 0)
      .flatMap((name) => atPath(join(pins, name), `${pinned(name)} pinned ${name === 'maps' ? 'maps' : 'hooks'} in`)),
    ...atPath(pins, 'folder'),
    ...contentsOf(options.runDir, 'sockets in'),
    ...(options.state ? contentsOf(options.stateDir, 'state in') : []),
  ];
}

/** Last: pods lose their devices. One end of a pair takes the other with it. */
function links(netlink: Netlink): Leftover[] {
  return listLinks(netlink)
    .filter((link) => isOurs(link.name))
    .map(({ ifindex, name }) => ({ text: `device ${name}`, remove: () => void deleteLink(netlink, ifindex) }));
}

const isOurs = (name: string) => name === 'weir_host' || name === 'weir_net' || /^weir\d+$/.test(name);
