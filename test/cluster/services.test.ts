// Services on a cluster without kube-proxy: every kind of address, asked from pods, from nodes and from outside; what
// happens to requests while agents restart and while pods are replaced.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { after, before, describe, test } from 'node:test';
import {
  kubeconfigFile,
  kubectl,
  nodeExec,
  programFile,
  startAgent,
  stopAgent,
  waitForAgent,
  worldExec,
} from '../../lab/lab.ts';
import { labName, nodeNames, type SharedLab, sharedLab, waitFor } from './shared-lab.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const namespace = 'balanced';
const replicas = 4;

/** Answers with its own name and the client's address; ends gracefully, as a rollout expects. */
const server = `
import http.server, json, os, signal, socket, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({'pod': os.environ['HOSTNAME'], 'client': self.client_address[0]}).encode()
        self.send_response(200); self.send_header('Content-Length', str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *args): pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = 128
server = Server(('::', 8080), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
`;

/** Asks for ever, and says what it got: one line per request. Ends with its input. */
const asker = `
import json, sys, threading, time, urllib.request
url, = sys.argv[1:]
done = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()
asked = failed = 0
errors = []
while not done.is_set():
    asked += 1
    try: urllib.request.urlopen(url, timeout=3).read()
    except Exception as error: failed += 1; errors.append(str(error))
    time.sleep(0.005)
print(json.dumps({'asked': asked, 'failed': failed, 'errors': errors[:3]}))
`;

interface Answer {
  readonly pod: string;
  readonly client: string;
}

describe('services', { skip }, () => {
  let lab: SharedLab;
  let vips: string[] = [];
  let nodePort = 0;
  let localNodePort = 0;
  const nodeAddresses = new Map<string, string[]>();
  const host = (address: string) => (address.includes(':') ? `[${address}]` : address);
  const url = (address: string, port: number) => `http://${host(address)}:${port}/`;
  const curl = (target: string) => ['curl', '-sS', '--max-time', '3', target];

  before(async () => {
    lab = await sharedLab();
    await waitFor(
      'the namespace of an earlier run to be gone',
      async () => {
        if ((await lab.api.get(`/api/v1/namespaces/${namespace}`).catch(() => undefined)) === undefined) return true;
        await lab.api.delete(`/api/v1/namespaces/${namespace}`);
        return undefined;
      },
      60_000,
    );
    const image = { image: 'weir.local/toolbox:dev', imagePullPolicy: 'Never' };
    const port = { port: 80, targetPort: 'http' };
    const service = (name: string, spec: object) => ({
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name, namespace },
      spec: { ipFamilyPolicy: 'RequireDualStack', selector: { app: 'web' }, ports: [port], ...spec },
    });
    await lab.apply([
      { apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } },
      {
        apiVersion: 'apps/v1',
        kind: 'Deployment',
        metadata: { name: 'web', namespace },
        spec: {
          replicas,
          selector: { matchLabels: { app: 'web' } },
          strategy: { rollingUpdate: { maxUnavailable: 0, maxSurge: 2 } },
          template: {
            metadata: { labels: { app: 'web' } },
            spec: {
              terminationGracePeriodSeconds: 10,
              containers: [
                {
                  name: 'web',
                  ...image,
                  command: ['python3', '-c', server],
                  ports: [{ name: 'http', containerPort: 8080 }],
                  readinessProbe: { httpGet: { path: '/', port: 'http' }, periodSeconds: 1 },
                  lifecycle: { preStop: { sleep: { seconds: 2 } } },
                },
              ],
            },
          },
        },
      },
      service('web', { type: 'NodePort' }),
      service('sticky', { sessionAffinity: 'ClientIP' }),
      service('local', { type: 'NodePort', externalTrafficPolicy: 'Local' }),
      service('nobody', { selector: { app: 'nobody' } }),
      ...nodeNames.real.map((node) => ({
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name: `client-${node}`, namespace, labels: { app: 'client' } },
        spec: {
          nodeName: node,
          terminationGracePeriodSeconds: 0,
          containers: [{ name: 'client', ...image, command: ['sleep', 'inf'] }],
        },
      })),
      {
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name: 'host-port', namespace },
        spec: {
          nodeName: nodeNames.real[0],
          terminationGracePeriodSeconds: 0,
          containers: [
            {
              name: 'web',
              ...image,
              command: ['python3', '-c', server],
              ports: [{ containerPort: 8080, hostPort: 18_080 }],
            },
          ],
        },
      },
    ]);
    await lab.kubectl(['wait', '-n', namespace, '--for=condition=Available', 'deployment/web', '--timeout=90s']);
    await lab.kubectl(['wait', '-n', namespace, '--for=condition=Ready', 'pod', '--all', '--timeout=90s']);
    const web = await lab.api.get(`/api/v1/namespaces/${namespace}/services/web`);
    vips = web.spec.clusterIPs;
    nodePort = web.spec.ports[0].nodePort;
    localNodePort = (await lab.api.get(`/api/v1/namespaces/${namespace}/services/local`)).spec.ports[0].nodePort;
    for (const node of (await lab.status()).nodes) nodeAddresses.set(node.name, [...node.addresses]);
    await waitFor(
      'node ports to be served',
      () => asked(['world', url(nodeAddresses.get('node1')![0]!, nodePort)]),
      20_000,
    );
  });
  after(async () => {
    await lab?.kubectl(['delete', 'namespace', namespace, '--wait=false', '--ignore-not-found']);
  });

  /** Runs a request where it says: `world`, a node, or a pod. */
  async function request(where: string, target: string): Promise<{ status: number; stdout: string; stderr: string }> {
    if (where === 'world') return worldExec(labName, curl(target));
    if (where.startsWith('client-')) return kubectl(labName, ['exec', '-n', namespace, where, '--', ...curl(target)]);
    return nodeExec(labName, where, curl(target));
  }
  async function ask(where: string, target: string): Promise<Answer> {
    const { status, stdout, stderr } = await request(where, target);
    assert.equal(status, 0, `${where} asks ${target}: ${stderr}`);
    return JSON.parse(stdout) as Answer;
  }
  async function asked([where, target]: readonly [string, string]): Promise<boolean> {
    return (await request(where, target)).status === 0;
  }
  const everywhere = ['client-node1', 'client-node2', 'node1', 'node2'];

  test('a ClusterIP of either family is served to pods and nodes', async () => {
    for (const where of everywhere)
      for (const vip of vips) assert.match((await ask(where, url(vip, 80))).pod, /^web-/, where);
  });

  test('all backends get their share', async () => {
    const pods = new Set<string>();
    for (let i = 0; i < 40 && pods.size < replicas; i++) pods.add((await ask('node1', url(vips[0]!, 80))).pod);
    assert.equal(pods.size, replicas);
  });

  test('what each backend was given is counted, and what is still open', async () => {
    interface Counted {
      readonly frontends: readonly { readonly backends: readonly { connections: number; open: number }[] }[];
    }
    const total = async (node: string, what: 'connections' | 'open') => {
      const seen = await lab.agent<Counted>(node, `/v1/services/${namespace}%2Fweb`);
      return seen.frontends[0]!.backends.reduce((sum, each) => sum + each[what], 0);
    };
    const before = await total('node1', 'connections');
    for (let i = 0; i < 5; i++) await ask('client-node1', url(vips[0]!, 80));
    for (let i = 0; i < 4; i++) await ask('node1', url(vips[0]!, 80));
    assert.equal((await total('node1', 'connections')) - before, 9, 'of sockets');
    const [address = ''] = nodeAddresses.get('node2')!;
    const there = await total('node2', 'connections');
    for (let i = 0; i < 6; i++) await ask('world', url(address, nodePort));
    assert.equal((await total('node2', 'connections')) - there, 6, 'of packets');

    const open = await total('node1', 'open');
    const talk = 'import socket,sys; s=socket.create_connection((sys.argv[1],80)); sys.stdin.read()';
    let finish = () => {};
    const until = new Promise<void>((resolve) => {
      finish = resolve;
    });
    const argv = ['exec', '-i', '-n', namespace, 'client-node1', '--', 'python3', '-c', talk, vips[0]!];
    const talking = runUntil(argv, until);
    await waitFor('the connection to be seen', async () => (await total('node1', 'open')) > open, 10_000);
    finish();
    await talking;
    await waitFor('its end to be seen', async () => (await total('node1', 'open')) <= open, 10_000);
  });

  test('a name in the cluster leads to it', async () => {
    for (const where of ['client-node1', 'client-node2'])
      assert.match((await ask(where, `http://web.${namespace}.svc.cluster.local/`)).pod, /^web-/);
  });

  test('a node port is served on all addresses of all nodes, to pods, nodes and the world', async () => {
    for (const where of [...everywhere, 'world'])
      for (const node of nodeNames.real)
        for (const address of nodeAddresses.get(node)!)
          assert.match((await ask(where, url(address, nodePort))).pod, /^web-/, `${where} to ${address}`);
  });

  test('a node serves its node ports on its loopback', async () => {
    for (const address of ['127.0.0.1', '::1']) assert.match((await ask('node1', url(address, nodePort))).pod, /^web-/);
  });

  test('a process of the node is told that a node port or host port is taken; one of a pod may have it', async () => {
    const bound = async (where: 'node1' | 'client-node1', family: string, address: string, port: number) => {
      const code = `import socket; socket.socket(socket.${family}).bind((${JSON.stringify(address)}, ${port})); print('bound')`;
      const command = ['python3', '-c', code];
      const { stdout, stderr } =
        where === 'node1'
          ? await nodeExec(labName, where, command)
          : await kubectl(labName, ['exec', '-n', namespace, where, '--', ...command]);
      return stdout.includes('bound') ? 'bound' : /Errno \d+/.exec(stderr)?.[0];
    };
    for (const [family, address] of [
      ['AF_INET', '0.0.0.0'],
      ['AF_INET6', '::'],
    ] as const)
      for (const port of [nodePort, 18_080]) {
        assert.equal(await bound('node1', family, address, port), 'Errno 98', `${address} ${port}`);
        assert.equal(await bound('client-node1', family, address, port), 'bound', `${address} ${port}`);
      }
  });

  test('with the external traffic policy Local the client keeps its address', async () => {
    for (const node of nodeNames.real)
      for (const address of nodeAddresses.get(node)!) {
        const { client } = await ask('world', url(address, localNodePort));
        assert.match(client.replace('::ffff:', ''), /^(10\.77\.0\.2|fd77::2)$/, address);
      }
  });

  test('a host port leads to its pod, on its node only', async () => {
    const [here, there] = nodeNames.real.map((node) => nodeAddresses.get(node)![0]!);
    assert.equal((await ask('world', url(here!, 18_080))).pod, 'host-port');
    assert.equal((await ask('client-node2', url(here!, 18_080))).pod, 'host-port');
    assert.notEqual((await request('world', url(there!, 18_080))).status, 0);
  });

  test('session affinity keeps a client at one backend', async () => {
    const [vip] = (await lab.api.get(`/api/v1/namespaces/${namespace}/services/sticky`)).spec.clusterIPs;
    const pods = new Set<string>();
    for (let i = 0; i < 12; i++) pods.add((await ask('client-node1', url(vip, 80))).pod);
    assert.equal(pods.size, 1);
  });

  test('a service without backends refuses at once', async () => {
    for (const vip of (await lab.api.get(`/api/v1/namespaces/${namespace}/services/nobody`)).spec.clusterIPs) {
      const { status, stderr } = await request('client-node1', url(vip, 80));
      assert.equal(status, 7, stderr); // curl: could not connect; 28 would be a timeout
    }
  });

  /** Requests from two pods and the machine's outside while `work` is done: none may fail. */
  async function underRequests(work: () => Promise<void>): Promise<void> {
    const running = ['client-node1', 'client-node2'].map((pod, i) => {
      const argv = ['exec', '-i', '-n', namespace, pod, '--', 'python3', '-c', asker, url(vips[i]!, 80)];
      let finish = () => {};
      const until = new Promise<void>((resolve) => {
        finish = resolve;
      });
      return { result: runUntil(argv, until), finish };
    });
    try {
      await work();
    } finally {
      for (const each of running) each.finish();
    }
    for (const { result } of running) {
      const {
        asked: count,
        failed,
        errors,
      } = JSON.parse(await result) as {
        asked: number;
        failed: number;
        errors: string[];
      };
      assert.ok(count > 50, `${count} requests`);
      assert.equal(failed, 0, `${failed} of ${count}: ${errors.join('; ')}`);
    }
  }

  test('no request fails while all agents are killed and started again', async () => {
    await underRequests(async () => {
      for (const node of nodeNames.real) {
        await stopAgent(labName, node, 'kill');
        await startAgent(labName, node);
        await waitForAgent(labName, node);
      }
    });
  });

  test('no request fails while all pods behind the service are replaced', async () => {
    await underRequests(async () => {
      await lab.kubectl(['rollout', 'restart', '-n', namespace, 'deployment/web']);
      await lab.kubectl(['rollout', 'status', '-n', namespace, 'deployment/web', '--timeout=120s']);
    });
  });
});

/** Runs kubectl with an input that ends when `until` does; answers what it printed. */
async function runUntil(argv: readonly string[], until: Promise<void>): Promise<string> {
  const child = spawn(programFile('kubectl'), [`--kubeconfig=${kubeconfigFile(labName)}`, ...argv], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  let output = '';
  child.stdout.on('data', (part) => (output += part));
  void until.then(() => child.stdin.end());
  await new Promise((resolve) => child.on('close', resolve));
  return output;
}
