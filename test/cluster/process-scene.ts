// A namespace of real pods whose flows are looked at with the command line: for tests of who made a connection.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { attempt, type CommandResult, kubectl } from '../../lab/lab.ts';
import { labName, type SharedLab, waitFor } from './shared-lab.ts';

const weirPath = join(fileURLToPath(new URL('../..', import.meta.url)), 'bin/weir');

/** Runs `weir` on the shared lab, whatever comes of it. */
export function weir(command: string, ...args: string[]): Promise<CommandResult> {
  return attempt([weirPath, command, '--context', labName, ...args]);
}

/** Runs a program in a pod, whatever comes of it. */
export function inPod(namespace: string, pod: string, ...argv: string[]): Promise<CommandResult> {
  return kubectl(labName, ['exec', '-n', namespace, pod, '--', ...argv]);
}

/** A pod of one container on a node, with its own name as label `app`. */
export function podOn(
  namespace: string,
  name: string,
  nodeName: string,
  command: readonly string[],
  container = 'main',
) {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace, labels: { app: name } },
    spec: {
      nodeName,
      terminationGracePeriodSeconds: 0,
      containers: [{ name: container, image: 'weir.local/toolbox:dev', command }],
    },
  };
}

/** Makes the namespace with what is in it, and waits until its pods are ready; gives their addresses by name. */
export async function createPods(
  lab: SharedLab,
  namespace: string,
  objects: readonly object[],
): Promise<Map<string, { readonly v4: string; readonly v6: string }>> {
  await waitFor(
    'an earlier run to be gone',
    async () => {
      if (!(await lab.api.get(`/api/v1/namespaces/${namespace}`).catch(() => undefined))) return true;
      await lab.api.delete(`/api/v1/namespaces/${namespace}`);
      return undefined;
    },
    60_000,
    300,
  );
  await lab.apply([{ apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } }, ...objects]);
  await lab.kubectl(['wait', '-n', namespace, '--for=condition=Ready', 'pod', '--all', '--timeout=60s']);
  const addresses = new Map<string, { v4: string; v6: string }>();
  for (const each of await lab.api.list(`/api/v1/namespaces/${namespace}/pods`)) {
    const { status } = each as unknown as { status: { podIPs: { ip: string }[] } };
    const ips = status.podIPs.map(({ ip }) => ip);
    const [v4, v6] = [ips.find((ip) => !ip.includes(':')), ips.find((ip) => ip.includes(':'))];
    assert.ok(v4 !== undefined && v6 !== undefined, each.metadata.name);
    addresses.set(each.metadata.name, { v4, v6 });
  }
  return addresses;
}

/** Deletes the namespace without waiting for it. */
export async function deletePods(lab: SharedLab | undefined, namespace: string): Promise<void> {
  await lab?.kubectl(['delete', 'namespace', namespace, '--wait=false', '--ignore-not-found']);
}
