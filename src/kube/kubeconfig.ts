// How to reach an API server and as whom: from a kubeconfig file, or from what Kubernetes mounts into a pod.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { parse } from 'yaml';
import { z } from 'zod';
import { errorText, WeirError } from '../core/errors.ts';

/** An API server and the means to prove who we are. `token` is asked before every request: tokens expire. */
export interface ClusterAccess {
  readonly server: string;
  readonly ca?: string;
  readonly insecure?: boolean;
  readonly serverName?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly token?: () => string | undefined;
  readonly basicAuth?: string;
}

const fileSchema = z.looseObject({
  'current-context': z.string().optional(),
  contexts: z
    .array(
      z.looseObject({ name: z.string(), context: z.looseObject({ cluster: z.string(), user: z.string().optional() }) }),
    )
    .default([]),
  clusters: z
    .array(
      z.looseObject({
        name: z.string(),
        cluster: z.looseObject({
          server: z.string(),
          'certificate-authority': z.string().optional(),
          'certificate-authority-data': z.string().optional(),
          'insecure-skip-tls-verify': z.boolean().optional(),
          'tls-server-name': z.string().optional(),
        }),
      }),
    )
    .default([]),
  users: z
    .array(
      z.looseObject({
        name: z.string(),
        user: z.looseObject({
          'client-certificate': z.string().optional(),
          'client-certificate-data': z.string().optional(),
          'client-key': z.string().optional(),
          'client-key-data': z.string().optional(),
          token: z.string().optional(),
          tokenFile: z.string().optional(),
          username: z.string().optional(),
          password: z.string().optional(),
          exec: z
            .looseObject({
              apiVersion: z.string(),
              command: z.string(),
              args: z.array(z.string()).nullish(),
              env: z.array(z.object({ name: z.string(), value: z.string() })).nullish(),
            })
            .optional(),
        }),
      }),
    )
    .default([]),
});

type User = z.infer<typeof fileSchema>['users'][number]['user'];

/** Reads a kubeconfig file; `context` instead of its current context. */
export function loadKubeconfig(path: string, context?: string): ClusterAccess {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const why = code === 'ENOENT' ? 'there is no such file' : code === 'EACCES' ? 'may not be read' : message;
    throw new WeirError('KUBECONFIG_INVALID', `${path}: ${why}`);
  }
  let file: z.infer<typeof fileSchema>;
  try {
    file = fileSchema.parse(parse(text));
  } catch (error) {
    const problem = error instanceof z.ZodError ? z.prettifyError(error) : (error as Error).message;
    throw new WeirError('KUBECONFIG_INVALID', `${path}: ${problem}`);
  }
  const name = context ?? file['current-context'];
  const chosen = file.contexts.find((entry) => entry.name === name)?.context;
  if (chosen === undefined) throw new WeirError('KUBECONFIG_INVALID', `${path}: no context "${name ?? ''}"`);
  const cluster = file.clusters.find((entry) => entry.name === chosen.cluster)?.cluster;
  if (cluster === undefined) throw new WeirError('KUBECONFIG_INVALID', `${path}: no cluster "${chosen.cluster}"`);
  const user = file.users.find((entry) => entry.name === chosen.user)?.user ?? {};
  const read = (data: string | undefined, file: string | undefined) =>
    data !== undefined
      ? Buffer.from(data, 'base64').toString('utf8')
      : file !== undefined
        ? readBeside(path, file)
        : undefined;
  const access: ClusterAccess = {
    server: cluster.server.replace(/\/+$/, ''),
    ca: read(cluster['certificate-authority-data'], cluster['certificate-authority']),
    insecure: cluster['insecure-skip-tls-verify'],
    serverName: cluster['tls-server-name'],
    cert: read(user['client-certificate-data'], user['client-certificate']),
    key: read(user['client-key-data'], user['client-key']),
    basicAuth: user.username === undefined ? undefined : `${user.username}:${user.password ?? ''}`,
    token: tokenSource(user, dirname(path)),
  };
  if (user.exec === undefined || access.token !== undefined) return access;
  try {
    return { ...access, ...execCredential(user.exec) };
  } catch (error) {
    throw new WeirError('KUBECONFIG_INVALID', `${path}: the credential plugin failed: ${errorText(error)}`);
  }
}

/** A file that a kubeconfig names, by a path that counts from the kubeconfig's own folder. */
function readBeside(kubeconfig: string, file: string): string {
  try {
    return readFileSync(resolve(dirname(kubeconfig), file), 'utf8');
  } catch (error) {
    throw new WeirError('KUBECONFIG_INVALID', `${kubeconfig}: ${errorText(error)}`);
  }
}

function tokenSource(user: User, folder: string): (() => string | undefined) | undefined {
  if (user.token !== undefined) return () => user.token;
  if (user.tokenFile !== undefined) return () => readFileSync(resolve(folder, user.tokenFile!), 'utf8').trim();
  return undefined;
}

/** Runs a credential plugin, once per expiry of what it answers. */
function execCredential(exec: NonNullable<User['exec']>): Partial<ClusterAccess> {
  let token: string | undefined;
  let expiresMs = 0;
  const run = () => {
    const output = execFileSync(exec.command, exec.args ?? [], {
      env: {
        ...process.env,
        ...Object.fromEntries((exec.env ?? []).map((entry) => [entry.name, entry.value])),
        KUBERNETES_EXEC_INFO: JSON.stringify({
          apiVersion: exec.apiVersion,
          kind: 'ExecCredential',
          spec: { interactive: false },
        }),
      },
      timeout: 30_000,
    });
    const { status } = JSON.parse(output.toString()) as {
      status?: { token?: string; expirationTimestamp?: string; clientCertificateData?: string; clientKeyData?: string };
    };
    token = status?.token;
    expiresMs =
      status?.expirationTimestamp === undefined ? Number.POSITIVE_INFINITY : Date.parse(status.expirationTimestamp);
    return status;
  };
  const first = run();
  return {
    cert: first?.clientCertificateData,
    key: first?.clientKeyData,
    token: () => {
      if (Date.now() > expiresMs - 60_000) run();
      return token;
    },
  };
}

const serviceAccountFolder = '/var/run/secrets/kubernetes.io/serviceaccount';

/** What a pod finds mounted; undefined outside a cluster. */
export function inClusterAccess(env: NodeJS.ProcessEnv = process.env): ClusterAccess | undefined {
  const host = env.KUBERNETES_SERVICE_HOST;
  if (host === undefined || !existsSync(`${serviceAccountFolder}/token`)) return undefined;
  return {
    server: `https://${host.includes(':') ? `[${host}]` : host}:${env.KUBERNETES_SERVICE_PORT ?? '443'}`,
    ca: readFileSync(`${serviceAccountFolder}/ca.crt`, 'utf8'),
    token: () => readFileSync(`${serviceAccountFolder}/token`, 'utf8').trim(),
  };
}

/** The access to use: the file named, else the pod's own, else $KUBECONFIG or ~/.kube/config. */
export function findAccess(path?: string): ClusterAccess {
  if (path !== undefined) return loadKubeconfig(path);
  const own = inClusterAccess();
  if (own !== undefined) return own;
  return loadKubeconfig(process.env.KUBECONFIG ?? `${process.env.HOME ?? '/root'}/.kube/config`);
}
