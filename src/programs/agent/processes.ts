// The processes of the node for its flows: programs hung in, those that run already read, names of containers joined.
import { uptime } from 'node:os';
import { join } from 'node:path';
import { errorText } from '../../core/errors.ts';
import type { ContainerRow } from '../../core/rows.ts';
import type { ReadTable } from '../../core/table.ts';
import { loadObjects } from '../../kernel/bpf-object.ts';
import { findCgroup2 } from '../../kernel/cgroups.ts';
import { readProcess, workingDirectory } from '../../kernel/proc.ts';
import { readRing } from '../../kernel/ring-buffer.ts';
import { type ContainerGroup, createContainerGroups, parseContainerGroup } from '../../observe/processes/containers.ts';
import { createProcessEvents, type ProcessNews } from '../../observe/processes/process-events.ts';
import {
  createProcessPrograms,
  type ProcessPrograms,
  processObject,
} from '../../observe/processes/process-programs.ts';
import type { ProcessContainer } from '../../observe/processes/process-row.ts';
import { processService } from '../../observe/processes/process-service.ts';
import { createProcessTable, type ProcessTable } from '../../observe/processes/process-table.ts';
import { secretPatterns } from '../../observe/processes/redact.ts';
import type { RpcService } from '../../observe/rpc/rpc-service.ts';
import type { Log } from '../log.ts';
import type { Agent } from './agent.ts';
import { createStateFile } from './node-state.ts';
import type { AgentSettings } from './settings.ts';

/** The node's processes. */
export interface AgentProcesses {
  readonly table: ProcessTable;
  /** Tells what processes did, and what is missing. */
  subscribe(listener: (news: ProcessNews) => void): () => void;
  /** Takes what the kernel has told since: before the connections are read that it made. */
  read(): void;
  /** Hands out what runs and what happens, to who asks. */
  readonly service: RpcService;
  status(): { running: number; execs: number; exits: number; lost: number; unknown: number; malformed: number };
  close(): void;
}

const maxLookupsPerSecond = 500;
/** More than the ring holds: whoever fills it faster than it is read does not keep the agent from everything else. */
const maxRecordsAtOnce = 8_192;
/** Programs whose names fill the table are forgotten a while after they ended. */
const reconcileMs = 60_000;
/** The kernel's count of lost events is looked at so often: the ring itself is read up to a hundred times a second. */
const lostReadEveryMs = 500;

/** Has the kernel take the programs; undefined where it refuses: flows then say nothing of processes. */
export async function startProcesses(agent: Agent, log: Log): Promise<AgentProcesses | undefined> {
  const { settings, sources } = agent;
  const programs = await loadPrograms(settings, log);
  if (programs === undefined) return undefined;
  const { ring } = programs;
  const groups = createContainerGroups(findCgroup2());
  const containers = nameContainers(sources.containers);
  const known = (group: ContainerGroup | undefined) => group && containers.find(group);
  let wallOffsetMs = Date.now() - uptime() * 1000;
  const table = createProcessTable(
    {
      nodeName: settings.nodeName,
      readProcess,
      workingDirectory: limited(workingDirectory),
      container: (cgroup) => known(groups.byId(cgroup)),
      containerByPath: (path) => known(parseContainerGroup(path)),
      redact: redactionOf(settings),
      wallMs: (bootNs) => Math.round((wallOffsetMs + bootNs / 1e6) * 1000) / 1000,
    },
    read,
  );
  const events = createProcessEvents();
  const listeners = new Set<(news: ProcessNews) => void>();
  const tell = (news: ProcessNews) => {
    events.add(news);
    for (const listener of [...listeners]) listener(news);
  };
  const stopEvents = table.subscribe(tell);
  let lost = programs.lost();
  const file = createStateFile(join(settings.stateDir, 'process-counters.json'), checkLost, (path, reason) =>
    log.error('STATE_FILE_INVALID: set aside', { file: path, reason }),
  );
  // What was lost while no agent ran is told, too; where the count is smaller than it was, it began anew.
  let lostTold = file.load()?.lost ?? 0;
  if (lostTold > lost) lostTold = 0;
  let lostReadMs = performance.now();
  let reading = false;

  function read(): void {
    if (reading) return;
    reading = true;
    try {
      readRing(ring, table.record, maxRecordsAtOnce);
      tellLost();
    } finally {
      reading = false;
    }
  }

  /** What the ring had no room for stands among the events, at about its place. */
  function tellLost(): void {
    const nowMs = performance.now();
    if (nowMs - lostReadMs < lostReadEveryMs) return;
    lostReadMs = nowMs;
    const now = programs!.lost();
    if (now === lostTold) return;
    tell({ kind: 'lost', timeMs: Date.now(), count: now - lostTold });
    lostTold = now;
    file.save({ lost: now });
  }

  try {
    const missing = programs.attach();
    if (missing.length > 0)
      log.info('this kernel does not say who works on accepted connections: they carry who listens', { missing });
    // What waited in the ring happened before.
    read();
    table.list(programs.list());
    programs.noteSockets();
  } catch (error) {
    log.error('processes will not be known', { error: errorText(error) });
    stopEvents();
    containers.close();
    programs.close();
    return undefined;
  }
  const timer = setInterval(() => {
    wallOffsetMs = Date.now() - uptime() * 1000;
    const now = programs.lost();
    if (now === lost) return;
    log.warn('processes were not told of: the ring was full', { lost: now - lost });
    lost = now;
    try {
      table.reconcile();
    } catch (error) {
      log.error('processes could not be looked at again', { error: errorText(error) });
    }
  }, reconcileMs);
  return {
    table,
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    read,
    service: processService({
      nodeName: settings.nodeName,
      events,
      running() {
        read();
        return table.running();
      },
    }),
    status: () => ({ running: table.running().length, lost: programs.lost(), ...table.counts }),
    close() {
      clearInterval(timer);
      stopEvents();
      containers.close();
      programs.close();
    },
  };
}

async function loadPrograms(settings: AgentSettings, log: Log): Promise<ProcessPrograms | undefined> {
  const pinDir = join(settings.bpffs, 'weir');
  try {
    const [loading] = loadObjects([processObject({ objects: settings.objects, pinDir })]);
    return createProcessPrograms(pinDir, await loading!);
  } catch (error) {
    log.error('processes will not be known', { error: errorText(error) });
    return undefined;
  }
}

function checkLost(value: unknown): { readonly lost: number } {
  const { lost } = value as { lost?: unknown };
  if (typeof lost !== 'number') throw new Error('lost must be a number');
  return { lost };
}

/** Looking up where a program began costs two system calls: a storm of programs does without. */
function limited(look: typeof workingDirectory): typeof workingDirectory {
  let window = 0;
  let used = 0;
  return (pid, startTicks) => {
    const now = Math.floor(performance.now() / 1000);
    if (now !== window) {
      window = now;
      used = 0;
    }
    return used++ < maxLookupsPerSecond ? look(pid, startTicks) : '';
  };
}

function redactionOf(settings: AgentSettings): readonly RegExp[] | undefined {
  if (settings.processArguments === 'off') return undefined;
  const own = settings.redactArguments.map((pattern) => new RegExp(pattern, 'g'));
  return settings.processArguments === 'all' ? own : [...secretPatterns, ...own];
}

const maxContainers = 8_192;

/** One object for each container; its name appears when the API server tells it. */
function nameContainers(table: ReadTable<ContainerRow, 'uid'>): {
  find(group: ContainerGroup): ProcessContainer;
  close(): void;
} {
  const known = new Map<string, { -readonly [K in keyof ProcessContainer]: ProcessContainer[K] }>();

  function fill(into: { -readonly [K in keyof ProcessContainer]: ProcessContainer[K] }, row: ContainerRow): void {
    into.name = row.name;
    into.image = row.image;
    into.namespace = row.namespace;
    into.pod = row.pod;
  }

  /** The container that only holds a pod's namespaces is none of the API's. */
  function nameSandbox(one: Parameters<typeof fill>[0], podUid: string): void {
    const other = table.by('uid', podUid)[0];
    if (other === undefined) return;
    one.namespace = other.namespace;
    one.pod = other.pod;
  }

  const close = table.subscribe(({ changes }) => {
    for (const { after } of changes) {
      if (after === undefined) continue;
      const one = known.get(after.id);
      if (one !== undefined) fill(one, after);
      for (const each of known.values())
        if (each.pod === '' && each.podUid === after.podUid) nameSandbox(each, after.podUid);
    }
  });
  return {
    close,
    find({ containerId, podUid }) {
      let one = known.get(containerId);
      if (one === undefined) {
        one = { id: containerId, name: '', image: '', podUid, namespace: '', pod: '' };
        const row = table.get(containerId);
        if (row !== undefined) fill(one, row);
        else nameSandbox(one, podUid);
        known.set(containerId, one);
        if (known.size > maxContainers) known.delete(known.keys().next().value!);
      }
      return one;
    },
  };
}
