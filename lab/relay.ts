// The flows of all nodes over the network: certificates for agents, relay and a client, as a user would make them, and
// the relay beside the API server. It also listens on a unix socket, which programs of the machine reach.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { hostAddresses, hostNumbers, httpsUrl } from './addresses.ts';
import { run } from './command.ts';
import { startInControlPlane } from './control-plane.ts';
import { credentialFiles } from './credentials.ts';
import { insideNode, nodeAddresses } from './node.ts';
import { isAlive, recall, stopRemembered } from './process-identity.ts';
import { type LabRecord, labDir, paths, readRecord, repository } from './state.ts';

const relayPort = 4245;

/** Where a client finds the relay, and what it shows it. */
export interface RelayAccess {
  /** For programs of the machine. */
  readonly socket: string;
  /** On the lab's network. */
  readonly addresses: readonly string[];
  readonly serverName: string;
  readonly caFile: string;
  readonly clientCertFile: string;
  readonly clientKeyFile: string;
}

const certificates = (lab: string) => join(paths.pki(lab), 'flows');
const client = 'lab';

/** Paths of what a client needs. */
export function relayAccess(record: LabRecord): RelayAccess {
  const file = (name: string) => join(certificates(record.name), name);
  return {
    socket: join(labDir(record.name), 'relay.sock'),
    addresses: hostAddresses(hostNumbers.controlPlane, record.ipFamily).map((each) =>
      httpsUrl(each, relayPort).slice('https://'.length),
    ),
    serverName: 'relay.flows.weir.dev',
    caFile: file('ca.crt'),
    clientCertFile: file(`client-${client}.crt`),
    clientKeyFile: file(`client-${client}.key`),
  };
}

/** Makes certificates for the nodes, the relay and one client. */
export async function makeFlowCertificates(record: LabRecord): Promise<void> {
  await run([
    join(repository, 'bin/weir'),
    'certs',
    'issue',
    `--dir=${certificates(record.name)}`,
    `--client=${client}=weir:admins`,
    ...record.nodes.map((node) => `--node=${node.name}=${nodeAddresses(record, node).join(',')}`),
    ...hostAddresses(hostNumbers.controlPlane, record.ipFamily).map((address) => `--relay-name=${address}`),
    '--days=365',
  ]);
}

/** The options with which a node's agent serves its flows on the network; none in a lab that has no certificates. */
export function agentFlowOptions(lab: string, node: string): string[] {
  if (!existsSync(join(certificates(lab), `${node}.crt`))) return [];
  const file = (name: string) => join(insideNode.state, 'pki/flows', name);
  return [
    `--flow-tls-cert-file=${file(`${node}.crt`)}`,
    `--flow-tls-key-file=${file(`${node}.key`)}`,
    `--flow-tls-client-ca-file=${file('ca.crt')}`,
  ];
}

/** Starts the relay. One that runs already is left alone. */
export function startRelay(lab: string): void {
  const record = readRecord(lab);
  if (record === undefined || isAlive(recall(paths.process(lab, 'relay')))) return;
  const file = (name: string) => join(certificates(lab), name);
  startInControlPlane(lab, 'relay', [
    join(repository, 'bin/weir'),
    'relay',
    `--listen=${record.ipFamily === 'v4' ? '0.0.0.0' : '[::]'}:${relayPort}`,
    `--listen=unix:${relayAccess(record).socket}`,
    '--peers=kubernetes',
    `--kubeconfig=${credentialFiles.kubeconfig(lab, 'relay')}`,
    `--tls-cert-file=${file('relay.crt')}`,
    `--tls-key-file=${file('relay.key')}`,
    `--tls-client-ca-file=${file('client-ca.crt')}`,
    // Whoever has no certificate may have a token.
    '--tls-client-auth=optional',
    `--agent-cert-file=${file('relay.crt')}`,
    `--agent-key-file=${file('relay.key')}`,
    `--agent-ca-file=${file('ca.crt')}`,
  ]);
}

/** Ends the relay. */
export async function stopRelay(lab: string): Promise<void> {
  await stopRemembered(paths.process(lab, 'relay'), 10_000);
}
