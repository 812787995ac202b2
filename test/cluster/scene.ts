// A namespace of its own for a test: pods as namespaces on nodes without kubelet, probers in them, policies, and a way
// to know that every agent has all of it in the kernel. `close` leaves nothing behind.
import { addPod, deletePod, type LabPod, type PodOptions, podCommand } from '../../lab/lab.ts';
import { compileTool } from './compile-tool.ts';
import { type ProbeOutcome, type Prober, startProber } from './prober.ts';
import { nodeNames, type SharedLab, waitFor } from './shared-lab.ts';

/** A pod of a scene. */
export interface ScenePod extends LabPod {
  readonly prober: Prober;
  readonly ipv4: string;
  readonly ipv6: string;
}

/** What a test plays in. */
export interface Scene {
  readonly namespace: string;
  readonly pods: ReadonlyMap<string, ScenePod>;
  pod(name: string): ScenePod;
  /** Adds a pod whose prober answers on `servePorts`. */
  add(
    options: Omit<PodOptions, 'namespace'> & { namespace?: string; servePorts?: readonly number[] },
  ): Promise<ScenePod>;
  remove(name: string): Promise<void>;
  /** Applies a NetworkPolicy of this namespace and waits until both agents enforce it. */
  policy(name: string, spec: object): Promise<void>;
  deletePolicy(name: string): Promise<void>;
  /** Waits until agents know all pods and have written everything they know. */
  settled(): Promise<void>;
  /** The outcome in each of the pod's families when they agree; both outcomes otherwise. */
  probe(from: string, to: string, port: number, protocol?: 'tcp' | 'udp'): Promise<ProbeOutcome | string>;
  close(): Promise<void>;
}

/** Denied packets are dropped, so silence is the answer; on one machine an answer takes well under this. */
const silenceMs = 250;
const policies = (namespace: string) => `/apis/networking.k8s.io/v1/namespaces/${namespace}/networkpolicies`;

/** Creates the namespace; further ones may be named, which are deleted with it. */
export async function createScene(
  lab: SharedLab,
  namespace: string,
  others: Readonly<Record<string, Record<string, string>>> = {},
  nodes: readonly string[] = nodeNames.bare,
): Promise<Scene> {
  const namespaces: Record<string, Record<string, string>> = { [namespace]: {}, ...others };
  const pods = new Map<string, ScenePod>();
  await waitFor(
    'namespaces of an earlier run to be gone',
    async () => {
      for (const name of Object.keys(namespaces))
        if (await lab.api.get(`/api/v1/namespaces/${name}`).catch(() => undefined)) {
          await lab.api.delete(`/api/v1/namespaces/${name}`);
          return undefined;
        }
      return true;
    },
    60_000,
  );
  await lab.apply(
    Object.entries(namespaces).map(([name, labels]) => ({
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name, labels },
    })),
  );

  const scene: Scene = {
    namespace,
    pods,
    pod(name) {
      const found = pods.get(name);
      if (found === undefined) throw new Error(`the scene has no pod ${name}`);
      return found;
    },
    async add({ servePorts = [80], ...options }) {
      const made = await addPod(lab.record, lab.api, { namespace, ...options });
      const prober = await startProber(
        podCommand(lab.record, made, [compileTool('prober'), ...servePorts.map(String)]),
      );
      const pod: ScenePod = {
        ...made,
        prober,
        ipv4: made.addresses.find((each) => !each.includes(':')) ?? '',
        ipv6: made.addresses.find((each) => each.includes(':')) ?? '',
      };
      pods.set(options.name, pod);
      return pod;
    },
    async remove(name) {
      const pod = scene.pod(name);
      pods.delete(name);
      pod.prober.close();
      await deletePod(lab.record, lab.api, pod);
    },
    async policy(name, spec) {
      const body = { apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', metadata: { name, namespace }, spec };
      await lab.api.delete(`${policies(namespace)}/${name}`);
      await lab.api.create(policies(namespace), body);
      await scene.settled();
    },
    async deletePolicy(name) {
      await lab.api.delete(`${policies(namespace)}/${name}`);
      await scene.settled();
    },
    async settled() {
      const wanted = await lab.api.list(policies(namespace));
      await waitFor(
        'the agents to have everything in the kernel',
        async () => {
          for (const node of nodes) {
            const rows = await lab.agent<{ uid: string; namespace: string }[]>(node, '/v1/policies');
            const own = rows.filter((row) => row.namespace === namespace).map((row) => row.uid);
            if (own.length !== wanted.length || !wanted.every((each) => own.includes(each.metadata.uid!)))
              return undefined;
            const known = await lab.agent<{ address: string; pod?: string; namespace?: string }[]>(
              node,
              '/v1/addresses',
            );
            for (const pod of pods.values())
              if (
                !known.some(
                  (row) =>
                    row.pod === pod.name && row.namespace === pod.namespace && pod.addresses.includes(row.address),
                )
              )
                return undefined;
            const { pending, synced } = await lab.agent<{ pending: boolean; synced: boolean }>(node, '/v1/sync');
            if (pending || !synced) return undefined;
          }
          return true;
        },
        20_000,
      );
    },
    async probe(from, to, port, protocol = 'tcp') {
      const { addresses } = scene.pod(to);
      const outcomes = await Promise.all(
        addresses.map((address) => scene.pod(from).prober.probe(protocol, address, port, silenceMs)),
      );
      return outcomes.every((each) => each === outcomes[0]) ? outcomes[0]! : `IPv4 ${outcomes[0]}, IPv6 ${outcomes[1]}`;
    },
    async close() {
      for (const name of [...pods.keys()]) await scene.remove(name);
      await lab.kubectl(['delete', 'namespace', ...Object.keys(namespaces), '--wait=false', '--ignore-not-found']);
    },
  };
  return scene;
}
