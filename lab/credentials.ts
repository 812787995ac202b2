// All keys, certificates and kubeconfigs of a lab's cluster, made anew with every lab.
import { chownSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  hostAddress,
  hostAddresses,
  hostNumbers,
  httpsUrl,
  kubernetesServiceAddresses,
  nodeHostNumber,
} from './addresses.ts';
import { type Credential, issue, keyPem, newKey, publicKeyPem } from './certificates.ts';
import { type LabRecord, paths } from './state.ts';

/** The API server's address on the lab's network. */
export function apiServerAddress(record: LabRecord): string {
  return hostAddress(hostNumbers.controlPlane, record.ipFamily === 'v6' ? 'v6' : 'v4');
}

/** The API server's port, in every lab. */
export const apiServerPort = 6443;

/** The groups that certificates of Weir's programs carry; roles are bound to them. */
export const weirGroups = { agents: 'weir:agents', operators: 'weir:operators', relays: 'weir:relays' } as const;

/** A client's configuration with everything it needs inside. JSON is YAML. */
function kubeconfigText(server: string, authorityPem: string, client: Credential, cluster: string): string {
  const base64 = (text: string) => Buffer.from(text).toString('base64');
  const user = client.subject.commonName;
  return `${JSON.stringify(
    {
      apiVersion: 'v1',
      kind: 'Config',
      clusters: [{ name: cluster, cluster: { server, 'certificate-authority-data': base64(authorityPem) } }],
      users: [
        {
          name: user,
          user: {
            'client-certificate-data': base64(client.certificatePem),
            'client-key-data': base64(keyPem(client.key)),
          },
        },
      ],
      contexts: [{ name: cluster, context: { cluster, user } }],
      'current-context': cluster,
    },
    null,
    2,
  )}\n`;
}

/** Paths of files that programs of the lab are started with. */
export const credentialFiles = {
  authority: (lab: string) => join(paths.pki(lab), 'ca.crt'),
  certificate: (lab: string, name: string) => join(paths.pki(lab), `${name}.crt`),
  key: (lab: string, name: string) => join(paths.pki(lab), `${name}.key`),
  kubeconfig: (lab: string, name: string) => join(paths.pki(lab), `${name}.kubeconfig`),
} as const;

/** Makes everything and writes it to the lab's `pki` folder, and the administrator's kubeconfig beside it. */
export function makeCredentials(record: LabRecord): void {
  const lab = record.name;
  const folder = paths.pki(lab);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const write = (file: string, text: string) => writeFileSync(join(folder, file), text, { mode: 0o600 });
  const keep = (name: string, credential: Credential) => {
    write(`${name}.crt`, credential.certificatePem);
    write(`${name}.key`, keyPem(credential.key));
  };
  const authority = issue({ commonName: `weir-lab-${lab}` }, undefined);
  const frontProxyAuthority = issue({ commonName: 'front-proxy' }, undefined);
  keep('ca', authority);
  keep('front-proxy-ca', frontProxyAuthority);
  const serviceAccounts = newKey();
  write('service-accounts.key', keyPem(serviceAccounts));
  write('service-accounts.pub', publicKeyPem(serviceAccounts));

  const serverNames = [
    'localhost',
    'kubernetes',
    'kubernetes.default',
    'kubernetes.default.svc',
    'kubernetes.default.svc.cluster.local',
  ];
  const serverAddresses = [
    ...hostAddresses(hostNumbers.controlPlane, record.ipFamily),
    '127.0.0.1',
    '::1',
    ...kubernetesServiceAddresses(record.ipFamily),
  ];
  keep('apiserver', issue({ commonName: 'kube-apiserver' }, authority, [...serverAddresses, ...serverNames]));
  keep('front-proxy', issue({ commonName: 'front-proxy-client' }, frontProxyAuthority));
  keep('apiserver-kubelet', issue({ commonName: 'kube-apiserver', organizations: ['system:masters'] }, authority));

  const inside = httpsUrl(apiServerAddress(record), apiServerPort);
  const client = (file: string, commonName: string, organizations: string[] = [], altNames: string[] = []) => {
    const credential = issue({ commonName, organizations }, authority, altNames);
    write(`${file}.kubeconfig`, kubeconfigText(inside, authority.certificatePem, credential, `weir-${lab}`));
    return credential;
  };
  const admin = client('admin', 'admin', ['system:masters']);
  client('controller-manager', 'system:kube-controller-manager');
  client('scheduler', 'system:kube-scheduler');
  client('operator', 'weir-operator', [weirGroups.operators]);
  client('relay', 'weir-relay', [weirGroups.relays]);
  for (const node of record.nodes) {
    const names = [node.name, ...hostAddresses(nodeHostNumber(node.ordinal), record.ipFamily)];
    keep(node.name, client(node.name, `system:node:${node.name}`, ['system:nodes'], names));
    client(`agent-${node.name}`, `weir-agent:${node.name}`, [weirGroups.agents]);
  }
  keep('admin', admin);
  const outside = kubeconfigText(httpsUrl('127.0.0.1', record.port), authority.certificatePem, admin, `weir-${lab}`);
  const file = paths.kubeconfig(lab);
  writeFileSync(file, outside, { mode: 0o600 });
  // Whoever used sudo is the one who will use kubectl.
  const { SUDO_UID, SUDO_GID } = process.env;
  if (SUDO_UID !== undefined && SUDO_GID !== undefined) chownSync(file, Number(SUDO_UID), Number(SUDO_GID));
}
