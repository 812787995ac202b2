// A node: namespaces of its own around node-init.sh, which runs a container runtime and kubelet in them.
import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { WeirError } from '../src/core/errors.ts';
import { hostAddresses, nodeHostNumber } from './addresses.ts';
import { cgroupLayout, enterGroups, hostGroups, makeGroups, removeGroups } from './cgroups.ts';
import { attempt, type CommandOptions, type CommandResult, inCgroups, run, startDetached } from './command.ts';
import { databases, imageStore } from './image-store.ts';
import { imageNames, ownArchives, ownImagesDir } from './images.ts';
import { kubeletConfig } from './kubelet-config.ts';
import { lastLines } from './logs.ts';
import { makeHost, removeHost } from './network.ts';
import {
  childrenOf,
  identify,
  isAlive,
  type ProcessIdentity,
  recall,
  remember,
  stopRemembered,
} from './process-identity.ts';
import { programPath } from './programs.ts';
import { type LabRecord, labDir, type NodeSpec, netnsFile, paths, repository } from './state.ts';
import { waitFor } from './wait.ts';

/** A node's addresses in the lab's order of families. */
export function nodeAddresses(record: LabRecord, node: NodeSpec): string[] {
  return hostAddresses(nodeHostNumber(node.ordinal), record.ipFamily);
}

/** Where programs find the lab's folder and the checkout inside a node. */
export const insideNode = { state: '/run/lab/state', repository: '/run/lab/weir' } as const;

/** Starts a node's network, namespaces and programs; returns when its process 1 has made its mounts. */
export async function startNode(record: LabRecord, node: NodeSpec, runcFolder: string): Promise<void> {
  const lab = record.name;
  const mine = paths.node(lab, node.name);
  await makeHost(lab, node.name, nodeHostNumber(node.ordinal), record.ipFamily);
  makeGroups(lab, node.name);
  for (const each of ['run', 'log', 'lib']) mkdirSync(join(mine, each), { recursive: true });
  for (const each of ['init.pid', 'images-ready']) rmSync(join(mine, each), { force: true });
  if (node.kubelet && !existsSync(join(mine, 'lib/containerd'))) await copyStore(join(mine, 'lib/containerd'));
  const settings = writeNodeFiles(record, node, runcFolder);
  const namespaces = ['--mount', '--uts', '--ipc', '--pid', '--cgroup', '--fork', '--kill-child=KILL'];
  const command = inCgroups(hostGroups(lab, node.name), [
    ...['nsenter', `--net=${netnsFile(lab, node.name)}`, '--'],
    ...['unshare', ...namespaces, '--propagation', 'private', join(repository, 'lab/node-init.sh'), settings],
  ]);
  const started = startDetached(command, { logFile: paths.log(lab, node.name) });
  remember(paths.process(lab, node.name), started);
  if (cgroupLayout() === 'unified') await leaveNodeGroup(lab, started);
  const init = await waitFor(
    `${node.name} to make its mounts (see ${paths.log(lab, node.name)})`,
    async () => {
      const pid = existsSync(join(mine, 'init.pid')) && Number(readFileSync(join(mine, 'init.pid'), 'utf8'));
      if (!pid && !isAlive(started)) {
        const log = paths.log(lab, node.name);
        throw new WeirError('LAB_NOT_RUNNING', `${node.name} has ended: ${lastLines(log)}`, `Its log: ${log}`);
      }
      return pid ? identify(pid) : undefined;
    },
    20_000,
    10,
  );
  remember(paths.process(lab, `${node.name}-init`), init);
}

/**
 * With v2 alone no process may be in a group that hands controllers down, as the node's must. The node's own processes
 * move to a leaf; the one that waits outside for the node's end has to be moved from here, once it has a child in the node.
 */
async function leaveNodeGroup(lab: string, outside: ProcessIdentity): Promise<void> {
  makeGroups(lab, 'outside');
  await waitFor(
    'the node to be entered',
    async () => childrenOf(outside.pid).length > 0 || !isAlive(outside),
    10_000,
    5,
  );
  for (const group of hostGroups(lab, 'outside')) {
    if (isAlive(outside)) writeFileSync(join(group, 'cgroup.procs'), String(outside.pid));
  }
}

/** Gives a node its runtime's folder with the standard images in it. Files of images never change, so they are linked. */
async function copyStore(folder: string): Promise<void> {
  const store = imageStore();
  const partial = `${folder}.partial`;
  rmSync(partial, { recursive: true, force: true });
  const linked = await attempt(['cp', '--archive', '--link', store, partial]);
  if (linked.status !== 0) {
    rmSync(partial, { recursive: true, force: true }); // another file system
    await run(['cp', '--archive', store, partial]);
  }
  // Databases are changed in place: each node needs its own.
  for (const database of databases(store)) {
    rmSync(join(partial, database));
    copyFileSync(join(store, database), join(partial, database));
  }
  renameSync(partial, folder);
}

/** Writes what node-init.sh and the programs it starts read, and returns the settings file. */
function writeNodeFiles(record: LabRecord, node: NodeSpec, runcFolder: string): string {
  const lab = record.name;
  const mine = paths.node(lab, node.name);
  const images = ownImagesDir();
  mkdirSync(images, { recursive: true });
  const addresses = nodeAddresses(record, node);
  const variables = {
    name: node.name,
    lab: labDir(lab),
    repository,
    programs: [...programPath(), join(runcFolder, 'usr/sbin')].join(':'),
    images,
    layout: cgroupLayout(),
    role: node.kubelet ? 'kubelet' : 'none',
    address: addresses[0] ?? '',
    addresses: addresses.join(','),
  };
  const quote = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;
  const text = Object.entries(variables).map(([name, value]) => `${name}=${quote(value)}\n`);
  writeFileSync(join(mine, 'node.env'), text.join(''));
  writeFileSync(
    join(mine, 'images.list'),
    ownArchives()
      .map((archive) => `${basename(archive)}\n`)
      .join(''),
  );
  writeFileSync(join(mine, 'containerd.toml'), containerdConfig);
  const inside = join(insideNode.state, 'pki');
  writeFileSync(join(mine, 'kubelet.json'), JSON.stringify(kubeletConfig(record, node, inside), null, 2));
  return join(mine, 'node.env');
}

// restrict_oom_score_adj: where root may not lower a process's score, no pod could start without it.
const containerdConfig = `version = 3
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "${imageNames.pause}"
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/opt/cni/bin"]
conf_dir = "/etc/cni/net.d"
use_internal_loopback = true
`;

/** Process 1 of a node; undefined when the node does not run. */
export function nodeInit(lab: string, node: string): ProcessIdentity | undefined {
  const init = recall(paths.process(lab, `${node}-init`));
  return isAlive(init) ? init : undefined;
}

/** The command that runs another one inside a node: in its control groups and all its namespaces. */
export function inNode(lab: string, node: string, argv: readonly string[]): string[] {
  const init = nodeInit(lab, node);
  if (init === undefined) {
    throw new WeirError(
      'LAB_NOT_RUNNING',
      `${node} does not run`,
      `Start it: weir lab node ${node} start --name ${lab}`,
    );
  }
  const namespaces = ['--mount', '--uts', '--ipc', '--net', '--pid', '--cgroup'];
  return inCgroups(enterGroups(lab, node), ['nsenter', '--target', String(init.pid), ...namespaces, '--', ...argv]);
}

/** Runs a command inside a node to its end. */
export function nodeExec(
  lab: string,
  node: string,
  argv: readonly string[],
  options?: CommandOptions,
): Promise<CommandResult> {
  return attempt(inNode(lab, node, argv), options);
}

/** Ends a node like a machine whose power fails. What is on its disk stays for `startNode`. */
export async function stopNode(lab: string, node: string): Promise<void> {
  await removeGroups(lab, node); // kills its process 1, and with that all it has started
  await stopRemembered(paths.process(lab, node), 0);
  for (const name of [`${node}-init`, `${node}-agent`]) rmSync(paths.process(lab, name), { force: true });
  await removeHost(lab, node);
}

/** Waits until a node has imported all its images. */
export async function waitForImages(lab: string, node: NodeSpec): Promise<void> {
  if (!node.kubelet) return;
  const marker = join(paths.node(lab, node.name), 'images-ready');
  await waitFor(`the images of ${node.name} to be imported`, async () => existsSync(marker), 120_000);
}
