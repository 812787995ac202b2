// What tests, benchmarks and the demonstration use of the lab.
import { attempt, type CommandResult } from './command.ts';
import { programFile } from './programs.ts';
import { paths } from './state.ts';

export { startAgent, startOperator, stopAgent, stopOperator, waitForAgent } from './agents.ts';
export { type Api, type ApiObject, connectApi } from './api.ts';
export { attempt, type CommandOptions, type CommandResult, run } from './command.ts';
export { buildConformanceImages } from './conformance-images.ts';
export { credentialFiles } from './credentials.ts';
export { downLab } from './down.ts';
export { importImage } from './image-import.ts';
export { addPod, callPlugin, deletePod, type LabPod, type PodOptions, podCommand, podExec } from './kubeletless.ts';
export { inNode, nodeExec, stopNode } from './node.ts';
export { buildConformancePrograms, buildFlowClient, programFile } from './programs.ts';
export { type Progress, silentProgress, terminalProgress } from './progress.ts';
export { startRelay, stopRelay } from './relay.ts';
export { type LabRecord, netnsFile, readRecord, requireLab, requireNode } from './state.ts';
export { type LabStatus, labStatus, type NodeStatus } from './status.ts';
export { restartNode, type UpOptions, upLab } from './up.ts';
export { waitFor } from './wait.ts';
export { worldCommand, worldExec } from './world.ts';

/** The administrator's kubeconfig, for programs of this machine. */
export const kubeconfigFile = paths.kubeconfig;

/** Runs kubectl as the lab's administrator to its end. */
export function kubectl(lab: string, args: readonly string[], stdin?: string): Promise<CommandResult> {
  const options = stdin === undefined ? {} : { stdin };
  return attempt([programFile('kubectl'), `--kubeconfig=${paths.kubeconfig(lab)}`, ...args], options);
}
