// Runs an agent until it is told to stop: the agent itself, its sockets, and signals.
import { join } from 'node:path';
import { createLog } from '../log.ts';
import { startAgent } from './agent.ts';
import { apiActions, apiRoutes } from './api-routes.ts';
import { startFlows } from './flows.ts';
import { serveLocalApi } from './local-api.ts';
import { type AgentSettings, socketNames } from './settings.ts';

/** Resolves when the agent has stopped. The datapath goes on without it. */
export async function runAgent(settings: AgentSettings): Promise<void> {
  const log = createLog('agent', settings.logLevel);
  process.on('unhandledRejection', (error) =>
    log.error('something went wrong unseen', { error: String(error), stack: (error as Error)?.stack }),
  );
  const agent = await startAgent(settings, log);
  const flows = await startFlows(agent, log);
  const api = await serveLocalApi({
    path: join(settings.runDir, socketNames.agent),
    routes: { ...apiRoutes(agent), '/v1/flow-status': () => flows.status() },
    actions: apiActions(agent),
    cni: agent.handleCni,
    log,
  });
  const signal = await new Promise<string>((resolve) => {
    for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => resolve(name));
  });
  log.info('agent stops; the datapath goes on', { signal });
  await api.close();
  await flows.close();
  await agent.stop();
  process.exit(0);
}
