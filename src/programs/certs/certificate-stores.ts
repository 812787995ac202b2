// Where certificates are kept: files of a folder, or Secrets of Kubernetes.
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { hasStatus, type KubeClient } from '../../kube/client.ts';
import { type KubeObject, kubernetesResources } from '../../kube/resource.ts';
import type { CertificateStore } from './issue-certificates.ts';

/** NAME.crt and NAME.key in a folder that only its owner may read. */
export function folderStore(folder: string): CertificateStore {
  const file = (name: string, end: string) => join(folder, `${name}.${end}`);
  const write = (path: string, text: string) => {
    // Under another name first: an agent that looks sees the old one or the new one.
    writeFileSync(`${path}.partial`, text, { mode: 0o600 });
    renameSync(`${path}.partial`, path);
  };
  return {
    async read(name) {
      if (!existsSync(file(name, 'crt')) || !existsSync(file(name, 'key'))) return undefined;
      return { cert: readFileSync(file(name, 'crt'), 'utf8'), key: readFileSync(file(name, 'key'), 'utf8') };
    },
    async write(name, { cert, key }) {
      mkdirSync(folder, { recursive: true, mode: 0o700 });
      write(file(name, 'key'), key);
      write(file(name, 'crt'), cert);
    },
  };
}

interface SecretObject extends KubeObject {
  readonly type?: string;
  readonly data?: Readonly<Record<string, string>>;
}

/** A Secret `weir-flow-NAME` for each, as Kubernetes keeps certificates, with whom to trust beside it. */
export function secretStore(client: KubeClient, namespace: string): CertificateStore {
  const secretName = (name: string) => `weir-flow-${name}`;
  return {
    async read(name) {
      try {
        const { data } = await client.get<SecretObject>(kubernetesResources.secrets, secretName(name), namespace);
        const part = (key: string) => Buffer.from(data?.[key] ?? '', 'base64').toString('utf8');
        return { cert: part('tls.crt'), key: part('tls.key') };
      } catch (error) {
        if (hasStatus(error, 404)) return undefined;
        throw error;
      }
    },
    async write(name, { cert, key }, beside) {
      const texts = Object.entries({ 'tls.crt': cert, 'tls.key': key, ...beside });
      await client.apply<SecretObject>(kubernetesResources.secrets, {
        apiVersion: 'v1',
        kind: 'Secret',
        metadata: { name: secretName(name), namespace, labels: { 'app.kubernetes.io/part-of': 'weir' } },
        type: 'kubernetes.io/tls',
        data: Object.fromEntries(texts.map(([file, text]) => [file, Buffer.from(text).toString('base64')])),
      });
    },
  };
}
