// The cluster's own programs: etcd, API server, controllers and scheduler in the control plane's namespace, and the
// forwarder that lets programs of the machine reach the API server.
import { mkdirSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { WeirError } from '../src/core/errors.ts';
import { httpsUrl, serviceCidrs } from './addresses.ts';
import { connectApi } from './api.ts';
import { hostGroups, makeGroups } from './cgroups.ts';
import { inCgroups, startDetached } from './command.ts';
import { apiServerAddress, apiServerPort, credentialFiles } from './credentials.ts';
import { lastLines } from './logs.ts';
import { isAlive, recall, remember } from './process-identity.ts';
import { programFile } from './programs.ts';
import { type LabRecord, labDir, labNames, netnsFile, paths, readRecord } from './state.ts';
import { waitFor } from './wait.ts';

/** The names under which the control plane's processes are remembered and write their logs. */
export const controlPlaneParts = [
  'etcd',
  'kube-apiserver',
  'kube-controller-manager',
  'kube-scheduler',
  'forward',
] as const;

/** Starts a program in the control plane's network namespace and control groups, with the given name in its log. */
export function startInControlPlane(lab: string, name: string, argv: readonly string[]): void {
  makeGroups(lab, 'cp');
  const entered = ['nsenter', `--net=${netnsFile(lab, 'cp')}`, '--', ...argv];
  const command = inCgroups(hostGroups(lab, 'cp'), entered);
  remember(paths.process(lab, name), startDetached(command, { logFile: paths.log(lab, name) }));
}

/** A port of 127.0.0.1 that nobody listens on and that no other lab has been given. */
export async function freePort(first = 16443): Promise<number> {
  const given = new Set(labNames().map((lab) => readRecord(lab)?.port));
  for (let port = first; ; port++) {
    if (!given.has(port) && (await canListen(port))) return port;
  }
}

function canListen(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.on('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

/** Starts etcd, the API server and the forwarder; returns when the API server answers. */
export async function startApiServer(record: LabRecord): Promise<void> {
  const lab = record.name;
  const pki = (file: string) => join(paths.pki(lab), file);
  const data = join(labDir(lab), 'etcd');
  mkdirSync(data, { recursive: true, mode: 0o700 });
  const [clients, peers] = ['http://127.0.0.1:2379', 'http://127.0.0.1:2380'];
  startInControlPlane(lab, 'etcd', [
    programFile('etcd'),
    '--name=lab',
    `--data-dir=${data}`,
    '--unsafe-no-fsync', // the data goes with the lab
    '--log-level=warn',
    `--listen-client-urls=${clients}`,
    `--advertise-client-urls=${clients}`,
    `--listen-peer-urls=${peers}`,
    `--initial-advertise-peer-urls=${peers}`,
    `--initial-cluster=lab=${peers}`,
  ]);
  const address = apiServerAddress(record);
  startInControlPlane(lab, 'kube-apiserver', [
    programFile('kube-apiserver'),
    `--etcd-servers=${clients}`,
    `--advertise-address=${address}`,
    `--bind-address=${record.ipFamily === 'v4' ? '0.0.0.0' : '::'}`,
    `--secure-port=${apiServerPort}`,
    `--service-cluster-ip-range=${serviceCidrs(record.ipFamily)}`,
    '--allow-privileged=true',
    '--authorization-mode=Node,RBAC',
    '--enable-admission-plugins=NodeRestriction',
    '--profiling=false',
    `--client-ca-file=${pki('ca.crt')}`,
    `--tls-cert-file=${pki('apiserver.crt')}`,
    `--tls-private-key-file=${pki('apiserver.key')}`,
    '--kubelet-preferred-address-types=InternalIP',
    `--kubelet-certificate-authority=${pki('ca.crt')}`,
    `--kubelet-client-certificate=${pki('apiserver-kubelet.crt')}`,
    `--kubelet-client-key=${pki('apiserver-kubelet.key')}`,
    '--service-account-issuer=https://kubernetes.default.svc.cluster.local',
    `--service-account-key-file=${pki('service-accounts.pub')}`,
    `--service-account-signing-key-file=${pki('service-accounts.key')}`,
    `--requestheader-client-ca-file=${pki('front-proxy-ca.crt')}`,
    '--requestheader-allowed-names=front-proxy-client',
    '--requestheader-username-headers=X-Remote-User',
    '--requestheader-group-headers=X-Remote-Group',
    '--requestheader-extra-headers-prefix=X-Remote-Extra-',
    `--proxy-client-cert-file=${pki('front-proxy.crt')}`,
    `--proxy-client-key-file=${pki('front-proxy.key')}`,
  ]);
  startForwarder(record);
  const api = connectApi(record);
  try {
    await waitFor(
      'the API server',
      async () => {
        requireAlive(lab, ['etcd', 'kube-apiserver', 'forward']);
        return (await api.text('/readyz')) === 'ok';
      },
      120_000,
    );
  } finally {
    api.close();
  }
}

/** The forwarder runs in the machine's network namespace; its control group is the lab's. */
function startForwarder(record: LabRecord): void {
  const lab = record.name;
  const target = httpsUrl(apiServerAddress(record), apiServerPort).slice('https://'.length);
  const argv = [
    programFile('forward'),
    `--listen=127.0.0.1:${record.port}`,
    `--netns=${netnsFile(lab, 'cp')}`,
    `--target=${target}`,
  ];
  const command = inCgroups(hostGroups(lab, 'cp'), argv);
  remember(paths.process(lab, 'forward'), startDetached(command, { logFile: paths.log(lab, 'forward') }));
}

/** Starts the controllers and the scheduler. The API server must answer already. */
export function startControllers(record: LabRecord): void {
  const lab = record.name;
  const pki = (file: string) => join(paths.pki(lab), file);
  const asClient = (name: string) => {
    const file = credentialFiles.kubeconfig(lab, name);
    return [`--kubeconfig=${file}`, `--authentication-kubeconfig=${file}`, `--authorization-kubeconfig=${file}`];
  };
  const only = ['--bind-address=127.0.0.1', '--leader-elect=false', '--profiling=false'];
  // Nothing reports for a node without kubelet: its Ready condition must not grow old.
  const everNodeHasKubelet = record.nodes.every((node) => node.kubelet);
  startInControlPlane(lab, 'kube-controller-manager', [
    programFile('kube-controller-manager'),
    ...asClient('controller-manager'),
    ...only,
    '--allocate-node-cidrs=false', // Weir's operator gives the nodes their blocks
    `--service-cluster-ip-range=${serviceCidrs(record.ipFamily)}`,
    '--use-service-account-credentials=true',
    ...['--kube-api-qps=300', '--kube-api-burst=600'], // its controllers all start at once
    `--root-ca-file=${pki('ca.crt')}`,
    `--service-account-private-key-file=${pki('service-accounts.key')}`,
    `--cluster-signing-cert-file=${pki('ca.crt')}`,
    `--cluster-signing-key-file=${pki('ca.key')}`,
    ...(everNodeHasKubelet ? [] : ['--node-monitor-grace-period=87600h']),
  ]);
  startInControlPlane(lab, 'kube-scheduler', [programFile('kube-scheduler'), ...asClient('scheduler'), ...only]);
}

/** Fails at once, with the log's name, when a process that is needed has ended. */
export function requireAlive(lab: string, names: readonly string[]): void {
  for (const name of names) {
    if (isAlive(recall(paths.process(lab, name)))) continue;
    const log = paths.log(lab, name);
    throw new WeirError('LAB_NOT_RUNNING', `${name} has ended: ${lastLines(log)}`, `Its log: ${log}`);
  }
}
