// Where a lab keeps what it knows: one folder per lab under /var/lib/weir-lab, removed with the lab.
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { WeirError } from '../src/core/errors.ts';
import type { IpFamily } from './addresses.ts';

/** One node as it was asked for. */
export interface NodeSpec {
  readonly name: string;
  /** Starts at 1; decides the node's addresses. */
  readonly ordinal: number;
  /** False for a node without kubelet and container runtime. */
  readonly kubelet: boolean;
}

/** What is written down about a lab. */
export interface LabRecord {
  readonly name: string;
  readonly phase: 'starting' | 'up';
  readonly ipFamily: IpFamily;
  readonly nodes: readonly NodeSpec[];
  /** Whether nodes get a Weir agent, and the cluster an operator. */
  readonly agents: boolean;
  /** What Weir's operator is started with beyond what the lab itself says. */
  readonly operatorOptions?: readonly string[];
  /** The same of the agents. */
  readonly agentOptions?: readonly string[];
  /** The port on 127.0.0.1 of the machine that leads to the API server. */
  readonly port: number;
  readonly createdAt: string;
}

/** This checkout. */
export const repository = dirname(dirname(fileURLToPath(import.meta.url)));

const root = process.env.WEIR_LAB_STATE ?? '/var/lib/weir-lab';

/** The folder of a lab. */
export function labDir(lab: string): string {
  return join(root, lab);
}

/** Paths within a lab's folder. */
export const paths = {
  record: (lab: string) => join(labDir(lab), 'lab.json'),
  lock: (lab: string) => join(labDir(lab), 'busy.json'),
  pki: (lab: string) => join(labDir(lab), 'pki'),
  logs: (lab: string) => join(labDir(lab), 'logs'),
  processes: (lab: string) => join(labDir(lab), 'processes'),
  process: (lab: string, name: string) => join(labDir(lab), 'processes', `${name}.json`),
  kubeconfig: (lab: string) => join(labDir(lab), 'kubeconfig'),
  node: (lab: string, node: string) => join(labDir(lab), 'nodes', node),
  /** The node's /run/weir as seen from outside. */
  nodeRun: (lab: string, node: string) => join(labDir(lab), 'nodes', node, 'run'),
  log: (lab: string, name: string) => join(labDir(lab), 'logs', `${name}.log`),
} as const;

/** The name of a network namespace of a lab: `cp`, `world` or a node. */
export function netnsName(lab: string, host: string): string {
  return `weir-${lab}-${host}`;
}

/** The file that stands for a network namespace of a lab. */
export function netnsFile(lab: string, host: string): string {
  return `/run/netns/${netnsName(lab, host)}`;
}

/** Refuses names that could not be part of a path, a namespace or a control group. */
export function checkLabName(name: string): string {
  if (!/^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$/.test(name)) {
    throw new WeirError(
      'LAB_ARGUMENT_INVALID',
      `"${name}" cannot be a lab's name: it is not 1 to 20 letters a-z, digits and dashes`,
      'choose a name such as lab or demo-2',
    );
  }
  return name;
}

/** Writes a lab's record so that a reader sees the old one or the new one, never half of it. */
export function writeRecord(record: LabRecord): void {
  mkdirSync(labDir(record.name), { recursive: true });
  writeAtomically(paths.record(record.name), `${JSON.stringify(record, null, 2)}\n`);
}

/** Reads a lab's record; undefined when there is none, or none that can be read. */
export function readRecord(lab: string): LabRecord | undefined {
  try {
    const found = JSON.parse(readFileSync(paths.record(lab), 'utf8')) as LabRecord;
    return Array.isArray(found.nodes) && typeof found.port === 'number' ? found : undefined;
  } catch {
    return undefined;
  }
}

/** A lab that is up; an error that says so when it is not. */
export function requireLab(lab: string): LabRecord {
  const record = readRecord(lab);
  if (record === undefined || record.phase !== 'up') {
    throw new WeirError(
      'LAB_NOT_FOUND',
      record === undefined ? `no lab "${lab}" is up` : `lab "${lab}" is not complete`,
    );
  }
  return record;
}

/** A node of a lab; an error that names the nodes there are when there is no such node. */
export function requireNode(record: LabRecord, node: string): NodeSpec {
  const found = record.nodes.find((each) => each.name === node);
  if (found === undefined) {
    const names = record.nodes.map((each) => each.name).join(', ');
    throw new WeirError('LAB_NOT_FOUND', `lab "${record.name}" has no node "${node}"`, `its nodes are ${names}`);
  }
  return found;
}

/** The names of all labs that have left a folder, whole or not. */
export function labNames(): string[] {
  if (!existsSync(root)) return [];
  return readdirSync(root, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => entry.name)
    .sort();
}

/** The file by which the CLI finds a lab's agents. */
export function contextFile(lab: string): string {
  return join(process.env.XDG_CONFIG_HOME ?? join(homedir(), '.config'), 'weir', 'contexts', `${lab}.json`);
}

/** Writes a file under another name first, so that it is never seen half written. */
export function writeAtomically(file: string, text: string | Buffer, mode = 0o644): void {
  const partial = `${file}.${process.pid}.partial`;
  writeFileSync(partial, text, { mode });
  renameSync(partial, file);
}
