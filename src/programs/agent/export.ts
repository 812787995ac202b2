// Exports the agent's flows, processes and losses to what the configuration names.
import { join } from 'node:path';
import { createSink } from '../../observe/export/create-sink.ts';
import { type Exporters, startExporters } from '../../observe/export/exporters.ts';
import { version } from '../cli/version.ts';
import type { Log } from '../log.ts';
import type { Agent } from './agent.ts';
import type { AgentFlows } from './flows.ts';
import type { AgentMetrics } from './metrics.ts';
import type { AgentProcesses } from './processes.ts';

/** What is exported, as the rest of the agent sees it. */
export type AgentExports = Pick<Exporters, 'status' | 'problems' | 'close'>;

/** Starts exporting what `file` says. */
export async function startExport(options: {
  readonly agent: Pick<Agent, 'settings' | 'deviceName'>;
  readonly file: string;
  readonly flows: Pick<AgentFlows, 'observer'>;
  readonly processes: Pick<AgentProcesses, 'subscribe'> | undefined;
  readonly metrics: Pick<AgentMetrics, 'run' | 'all'>;
  readonly log: Log;
}): Promise<AgentExports> {
  const { agent, file, flows, processes, metrics, log } = options;
  const { nodeName, stateDir } = agent.settings;
  const context = { nodeName, version: `weir v${version}`, run: metrics.run, deviceName: agent.deviceName };
  const exporters = await startExporters({
    file,
    context,
    ring: flows.observer.ring,
    losses: flows.observer.losses,
    processes,
    folder: join(stateDir, 'export'),
    createSink: (config, onError) => createSink(config, context, metrics.all, onError),
    log,
  });
  const reopen = () => exporters.reopen();
  process.on('SIGHUP', reopen);
  return {
    ...exporters,
    async close() {
      process.off('SIGHUP', reopen);
      await exporters.close();
    },
  };
}
