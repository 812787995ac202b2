// Metrics of a program, served for as long as it runs.
import type { Registry } from 'prom-client';
import { errorText, WeirError } from '../core/errors.ts';
import { parseListen } from '../observe/metrics/parse-listen.ts';
import { type MetricsServer, serveMetrics } from '../observe/metrics/serve-metrics.ts';
import type { Log } from './log.ts';

/** Serves a registry; `off`: nowhere. Metrics that cannot be served are no reason not to run. */
export async function offerMetrics(address: string, registry: Registry, log: Log): Promise<MetricsServer | undefined> {
  if (address === 'off') return undefined;
  const listen = parseListen(address);
  if (listen === undefined)
    throw new WeirError('CONFIG_INVALID', `--metrics-listen ${address} is no address`, 'Give host:port, or off.');
  const onError = (error: unknown) => log.error('metrics could not be read', { error: errorText(error) });
  try {
    const server = await serveMetrics({ listen, registry, onError });
    log.info('metrics are served', { address: server.address });
    return server;
  } catch (error) {
    log.error('metrics cannot be served', { address, error: errorText(error) });
    return undefined;
  }
}
