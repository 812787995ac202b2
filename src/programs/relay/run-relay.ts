// Runs a relay until it is told to stop: the nodes it reads, the servers it offers, and what it says of itself.
import { hostname } from 'node:os';
import { WeirError } from '../../core/errors.ts';
import { createKubeClient, type KubeClient } from '../../kube/client.ts';
import { findAccess } from '../../kube/kubeconfig.ts';
import { anyAgentName } from '../../observe/flows/peer-service.ts';
import { followPeers } from '../../observe/relay/follow-peers.ts';
import type { RelayCounts } from '../../observe/relay/merge-nodes.ts';
import { createPeerPool } from '../../observe/relay/peer-pool.ts';
import { openAccess, type RelayAccess } from '../../observe/relay/relay-access.ts';
import { relayProcessService } from '../../observe/relay/relay-processes.ts';
import { relayService } from '../../observe/relay/relay-service.ts';
import { healthService } from '../../observe/rpc/health-service.ts';
import { reflectionServices } from '../../observe/rpc/reflection-service.ts';
import { parseAddress } from '../../observe/rpc/rpc-address.ts';
import { type RpcServer, serveRpc } from '../../observe/rpc/serve-rpc.ts';
import { type TlsFiles, type WatchedTls, watchTlsFiles } from '../../observe/rpc/tls-files.ts';
import { version } from '../cli/version.ts';
import { createLog, type Log } from '../log.ts';
import { offerMetrics } from '../offer-metrics.ts';
import { createAuthenticate, kubernetesReview } from './authenticate.ts';
import { enforceAccess } from './enforce-access.ts';
import { kubeRights } from './kube-rights.ts';
import { relayRegistry } from './metrics.ts';
import { followNodes } from './node-peers.ts';
import { createOidcVerifier, type OidcSettings } from './oidc.ts';

/** What a relay can be told. */
export interface RelaySettings {
  readonly listen: readonly string[];
  /** `kubernetes`, or the address of an agent's flows. */
  readonly peers: string;
  readonly peerPort: number;
  readonly kubeconfig?: string;
  /** What clients are shown, and which of them may come. */
  readonly tls: TlsFiles;
  readonly clientAuth: 'required' | 'optional';
  /** What agents are shown. */
  readonly agentTls: TlsFiles;
  /** Whether it is held who may see what; without a word where clients speak TLS. */
  readonly access?: 'off' | 'enforce';
  /** Users and groups that see everything. */
  readonly accessAdmins: readonly string[];
  /** Whose tokens are taken beside those of Kubernetes. */
  readonly oidc?: OidcSettings;
  /** Clients in the clear on addresses that others can reach. */
  readonly insecure: boolean;
  /** Where metrics are served; `off`: nowhere. */
  readonly metricsListen: string;
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error';
}

/** Clients of a relay read all nodes: each holds more than at an agent. */
const limits = { calls: 256, callsPerConnection: 64, connections: 256, connectionsPerClient: 32 } as const;

/** What calls for the last of all nodes may keep, all of them together. */
const tailBytesOfAll = 128 << 20;

/** Resolves when the relay has stopped. */
export async function runRelay(settings: RelaySettings, signal: AbortSignal): Promise<void> {
  const log = createLog('relay', settings.logLevel);
  const serverTls = watched('--tls-cert-file', settings.tls);
  const agentTls = watched('--agent-cert-file', settings.agentTls);
  for (const address of settings.listen) checkListen(address, serverTls !== undefined, settings.insecure);
  const enforced = (settings.access ?? (serverTls === undefined ? 'off' : 'enforce')) === 'enforce';
  if (enforced) for (const address of settings.listen) checkSecrets(address, serverTls !== undefined);
  const kube =
    enforced || settings.peers === 'kubernetes'
      ? createKubeClient(enforced ? accessCluster(settings.kubeconfig) : findAccess(settings.kubeconfig))
      : undefined;
  const access = enforced ? heldAccess(kube!, settings, log) : { check: openAccess, close() {} };

  const listeners = new Set<() => void>();
  const tailBytes = { left: tailBytesOfAll };
  const pool = createPeerPool({
    tls: agentTls === undefined ? undefined : () => agentTls.material,
    onEvent({ kind, link }) {
      const { name, address } = link.peer;
      const said = { node: name, address };
      if (kind === 'unavailable') log.warn('a node is not reached', { ...said, reason: link.problem });
      else log.info(kind === 'gone' ? 'a node is gone' : 'a node is connected', said);
      for (const listener of [...listeners]) listener();
    },
  });
  const flowCounts = { received: 0, sent: 0, late: 0, lost: 0 };
  const processCounts = { received: 0, sent: 0, late: 0, lost: 0 };
  const shared = (counts: RelayCounts, what: string) => ({
    pool,
    access: access.check,
    name: hostname(),
    tailBytes,
    counts,
    onLate(node: string, count: number) {
      counts.late += count;
      log.warn(`${what} came too late for their place in a stream`, { node, count });
    },
  });
  const own = [
    relayService({ ...shared(flowCounts, 'flows'), version: `weir-relay v${version}` }),
    relayProcessService(shared(processCounts, 'events of processes')),
  ];
  const health = healthService(own, {
    serving: () => pool.nodes().some((link) => link.connection !== undefined),
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  });
  const services = [...own, health, ...reflectionServices(own)];
  const clients =
    settings.tls.caFile === undefined ? 'none' : settings.clientAuth === 'required' ? 'required' : 'asked';
  const servers: RpcServer[] = [];
  for (const address of settings.listen) {
    const tls =
      serverTls === undefined || parseAddress(address).path !== undefined
        ? undefined
        : ({ files: serverTls, clients } as const);
    const server = await serveRpc({ address, services, tls, limits });
    servers.push(server);
    log.info('flows are served', {
      address: server.address,
      tls: tls !== undefined,
      clients,
      access: enforced ? 'enforce' : 'off',
    });
  }
  const metrics = await offerMetrics(
    settings.metricsListen,
    relayRegistry(pool, { flows: flowCounts, processes: processCounts }, servers),
    log,
  );
  const stopPeers =
    settings.peers === 'kubernetes'
      ? followNodes({
          client: kube!,
          pool,
          port: settings.peerPort,
          tls: agentTls !== undefined,
          onState: ({ connected, error }) =>
            connected ? log.info('nodes are followed') : log.warn('nodes are not followed', { error }),
        })
      : followPeers(
          () => ({
            address: settings.peers,
            tls: agentTls === undefined ? undefined : { material: agentTls.material, serverName: anyAgentName },
          }),
          pool,
          (reason) => log.warn('the agent that tells of nodes does not answer', { address: settings.peers, reason }),
        );
  if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve));
  log.info('relay stops');
  stopPeers();
  await Promise.all([...servers.map((server) => server.close()), metrics?.close()]);
  access.close();
  pool.close();
  for (const each of [serverTls, agentTls]) each?.close();
}

/** Where identities and rights come from: without it nobody could be let in. */
function accessCluster(kubeconfig: string | undefined): ReturnType<typeof findAccess> {
  try {
    return findAccess(kubeconfig);
  } catch (error) {
    throw new WeirError(
      'CONFIG_INVALID',
      `--access enforce asks the API server who may see what, and there is no way to it: ${(error as Error).message}`,
      'Give --kubeconfig, or say --access off: then everybody who may connect sees all flows.',
    );
  }
}

function heldAccess(
  client: KubeClient,
  { oidc, accessAdmins }: RelaySettings,
  log: Log,
): { check: RelayAccess; close(): void } {
  const source = kubeRights({ client, onProblem: (message, fields) => log.warn(message, fields) });
  const check = enforceAccess({
    authenticate: createAuthenticate({
      review: kubernetesReview(client),
      oidc: oidc === undefined ? undefined : createOidcVerifier(oidc),
    }),
    source,
    admins: accessAdmins,
    onRefused: (who, reason) => log.warn('access is refused', { ...who, reason }),
  });
  return { check, close: () => source.close() };
}

/** Tokens are secrets: in the clear they go no further than this machine. */
function checkSecrets(address: string, tls: boolean): void {
  const { path, host } = parsed(address);
  if (path !== undefined || tls || isLoopback(host)) return;
  throw new WeirError(
    'CONFIG_INVALID',
    `--access enforce on --listen ${address} would have tokens in the clear on the network`,
    'Give --tls-cert-file and --tls-key-file, or listen on 127.0.0.1.',
  );
}

function isLoopback(host: string | undefined): boolean {
  return host === 'localhost' || host === '::1' || host?.startsWith('127.') === true;
}

/** The certificate in these files; undefined when none is named. */
function watched(flag: string, files: TlsFiles): WatchedTls | undefined {
  if (files.certFile === undefined && files.keyFile === undefined && files.caFile === undefined) return undefined;
  if (files.certFile === undefined || files.keyFile === undefined)
    throw new WeirError('CONFIG_INVALID', `${flag} and its key file belong together`, 'Give both, or neither.');
  try {
    return watchTlsFiles(files);
  } catch (error) {
    throw new WeirError(
      'CONFIG_INVALID',
      `the certificate of ${flag} cannot be used: ${(error as Error).message}`,
      'Make certificates with `weir certs issue`.',
    );
  }
}

/** Flows say who talks to whom: they are in the clear only where nobody else listens, or by the user's word. */
function checkListen(address: string, tls: boolean, insecure: boolean): void {
  const { path, host } = parsed(address);
  if (path !== undefined || tls || insecure || isLoopback(host)) return;
  throw new WeirError(
    'CONFIG_INVALID',
    `--listen ${address} is reached from outside, and there is no certificate`,
    'Give --tls-cert-file and --tls-key-file, listen on 127.0.0.1 or a unix socket, or say --insecure.',
  );
}

function parsed(address: string): ReturnType<typeof parseAddress> {
  try {
    return parseAddress(address);
  } catch (error) {
    throw new WeirError('CONFIG_INVALID', `--listen: ${(error as Error).message}`);
  }
}
