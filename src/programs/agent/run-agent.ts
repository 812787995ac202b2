// Runs an agent until it is told to stop: the agent itself, its sockets, and signals.
import { join } from 'node:path';
import { createLog } from '../log.ts';
import type { AgentMetrics } from './metrics.ts';
import { type AgentSettings, socketNames } from './settings.ts';
import { takeNode } from './take-node.ts';

/** Showing flows begins when the node is in step, or after so long: what it needs takes longest to import. */
const flowsWaitMs = 3_000;

/** Resolves when the agent has stopped. The datapath goes on without it. */
export async function runAgent(settings: AgentSettings): Promise<void> {
  const log = createLog('agent', settings.logLevel);
  process.on('unhandledRejection', (error) =>
    log.error('something went wrong unseen', { error: String(error), stack: (error as Error)?.stack }),
  );
  const node = await takeNode(settings, log);
  // Imported only now: the programs are on their way into the kernel meanwhile.
  const [{ startAgent }, { apiActions, apiRoutes }, { serveLocalApi }] = await Promise.all([
    import('./agent.ts'),
    import('./api-routes.ts'),
    import('./local-api.ts'),
  ]);
  const agent = await startAgent(settings, node, log);
  const flows = agent.sync.whenSynced(flowsWaitMs).then(async () => {
    const [{ startFlows }, { startProcesses }, { startMetrics }] = await Promise.all([
      import('./flows.ts'),
      import('./processes.ts'),
      import('./metrics.ts'),
    ]);
    const processes = await startProcesses(agent, log);
    const metrics = await startMetrics(agent, processes, log);
    const started = await startFlows(agent, processes, metrics, log);
    metrics.show(started.status);
    const file = settings.exportConfig;
    if (file !== undefined) {
      const { startExport } = await import('./export.ts');
      agent.exports = await startExport({ agent, file, flows: started, processes, metrics, log });
    }
    return { ...started, processes, metrics };
  });
  let onCni: AgentMetrics['onCni'] | undefined;
  void flows.then(({ metrics }) => {
    onCni = metrics.onCni;
  });
  const timed: typeof agent.handleCni = async (request) => {
    const beganMs = performance.now();
    const tell = (result: 'ok' | 'error') => onCni?.(request.command, result, (performance.now() - beganMs) / 1000);
    try {
      const answer = await agent.handleCni(request);
      tell('ok');
      return answer;
    } catch (error) {
      tell('error');
      throw error;
    }
  };
  const api = await serveLocalApi({
    path: join(settings.runDir, socketNames.agent),
    routes: {
      ...apiRoutes(agent),
      '/v1/flow-status': async () => (await flows).status(),
      '/v1/processes': async () => {
        const { processes, talks } = await flows;
        const { processesView } = await import('./processes-view.ts');
        return processesView(processes, talks());
      },
    },
    actions: apiActions(agent),
    cni: timed,
    log,
  });
  const signal = await new Promise<string>((resolve) => {
    for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => resolve(name));
  });
  log.info('agent stops; the datapath goes on', { signal });
  await api.close();
  const { close } = await flows;
  await agent.exports?.close();
  await close();
  (await flows).processes?.close();
  await (await flows).metrics.close();
  await agent.stop();
  process.exit(0);
}
