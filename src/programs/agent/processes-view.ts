// What `/v1/processes` answers: who runs on the node, in which pod, and whom it talks to.
import type { ProcessTalk } from '../../observe/flows/flow-observer.ts';
import type { ProcessRow } from '../../observe/processes/process-row.ts';
import type { AgentProcesses } from './processes.ts';

/** A process as the API shows it. */
export interface ProcessView {
  readonly execId: string;
  readonly parentExecId?: string;
  readonly pid: number;
  readonly uid: number;
  readonly binary: string;
  readonly arguments: string;
  readonly cwd: string;
  readonly startedAt: string;
  readonly namespace?: string;
  readonly pod?: string;
  readonly container?: string;
  readonly containerId?: string;
  readonly image?: string;
  readonly talks: readonly Omit<ProcessTalk, 'execId'>[];
}

/** What the node knows of its processes. */
export interface ProcessesView {
  /** False where the kernel has refused the programs that tell of processes. */
  readonly known: boolean;
  readonly counts?: ReturnType<AgentProcesses['status']>;
  readonly processes: readonly ProcessView[];
}

/** The view. */
export function processesView(processes: AgentProcesses | undefined, talks: readonly ProcessTalk[]): ProcessesView {
  if (processes === undefined) return { known: false, processes: [] };
  processes.read();
  const byProcess = Map.groupBy(talks, (each) => each.execId);
  return {
    known: true,
    counts: processes.status(),
    processes: processes.table.running().map((row) => viewOf(row, byProcess.get(row.execId) ?? [])),
  };
}

function viewOf(row: ProcessRow, talks: readonly ProcessTalk[]): ProcessView {
  const { container } = row;
  return {
    execId: row.execId,
    ...(row.parent && { parentExecId: row.parent.execId }),
    pid: row.pid,
    uid: row.uid,
    binary: row.binary,
    arguments: row.arguments,
    cwd: row.cwd,
    startedAt: new Date(row.startMs).toISOString(),
    ...(container && {
      ...(container.pod !== '' && { namespace: container.namespace, pod: container.pod, container: container.name }),
      containerId: container.id,
      ...(container.image !== '' && { image: container.image }),
    }),
    talks: talks.map(({ execId: _, ...rest }) => rest),
  };
}
