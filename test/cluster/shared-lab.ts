// The one lab that all cluster tests share: brought up by the first that needs it, ended by scripts/test.ts. Two real
// nodes, and two without kubelet for tests of many pods.
import * as http from 'node:http';
import {
  type Api,
  connectApi,
  kubeconfigFile,
  kubectl,
  type LabRecord,
  type LabStatus,
  labStatus,
  requireLab,
  terminalProgress,
  upLab,
  waitFor,
} from '../../lab/lab.ts';

/** The lab's name; `weir lab ... --name test` works on it while tests run. */
export const labName = process.env.WEIR_TEST_LAB ?? 'test';

/** What tests need of the lab. */
export interface SharedLab {
  readonly record: LabRecord;
  readonly api: Api;
  /** The administrator's. */
  readonly kubeconfig: string;
  status(): Promise<LabStatus>;
  /** GET on a node's agent. */
  agent<T>(node: string, path: string): Promise<T>;
  /** kubectl; throws when it fails. */
  kubectl(args: readonly string[], stdin?: string): Promise<string>;
  apply(objects: readonly object[]): Promise<string>;
}

/** Real nodes and nodes without kubelet, by name. */
export const nodeNames = { real: ['node1', 'node2'], bare: ['node3', 'node4'] } as const;

/** The shared lab, up. */
export async function sharedLab(): Promise<SharedLab> {
  const running = await labStatus(labName).catch(() => undefined);
  if (running === undefined)
    await upLab({
      name: labName,
      nodes: nodeNames.real.length,
      kubeletless: nodeNames.bare.length,
      progress: terminalProgress(),
    });
  // A test before may have pulled a node's cable a moment ago.
  await waitFor(
    'all nodes to be ready',
    async () => (await labStatus(labName)).nodes.every((node) => node.ready),
    90_000,
    500,
  );
  return openLab(labName);
}

/** A lab that is up. */
export async function openLab(name: string): Promise<SharedLab> {
  const record = requireLab(name);
  const sockets = new Map((await labStatus(name)).nodes.map((node) => [node.name, node.sockets.agent]));
  const lab: SharedLab = {
    record,
    api: connectApi(record),
    kubeconfig: kubeconfigFile(name),
    status: () => labStatus(name),
    agent: (node, path) => getJson(sockets.get(node) ?? '', path),
    async kubectl(args, stdin) {
      const { status, stdout, stderr } = await kubectl(name, args, stdin);
      if (status !== 0) throw new Error(`kubectl ${args.join(' ')}: ${stderr.trim()}`);
      return stdout;
    },
    apply: (objects) =>
      lab.kubectl(['apply', '-f', '-'], JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects })),
  };
  return lab;
}

/** Reads JSON from a unix socket. */
function getJson<T>(socketPath: string, path: string): Promise<T> {
  return new Promise((resolve, reject) => {
    const request = http.get({ socketPath, path, timeout: 10_000 }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (part) => (text += part));
      response.on('end', () =>
        response.statusCode === 200
          ? resolve(JSON.parse(text) as T)
          : reject(new Error(`${path}: ${response.statusCode} ${text}`)),
      );
    });
    request.on('error', reject);
    request.on('timeout', () => request.destroy(new Error(`${path}: no answer`)));
  });
}

export { waitFor };
