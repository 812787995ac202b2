// Every connection says which process made it and which one answers, of real containers: short-lived ones, forks, those
// whose packets policy drops, those that began while the agent was dead; and what TCP and DNS had to say.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { startAgent, stopAgent } from '../../lab/lab.ts';
import { createPods, deletePods, inPod, podOn, weir } from './process-scene.ts';
import { labName, nodeNames, type SharedLab, sharedLab, waitFor } from './shared-lab.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const namespace = 'processes';
const [serverNode, clientNode] = nodeNames.real;

/** A server whose connections are answered by processes of their own, and one of datagrams. */
const serverProgram = `
import socket, socketserver, threading
class Answer(socketserver.StreamRequestHandler):
    def handle(self):
        while (line := self.rfile.readline().strip()):
            pass
        self.wfile.write(b'HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\nok')
class Server(socketserver.ForkingMixIn, socketserver.TCPServer):
    address_family = socket.AF_INET6
    allow_reuse_address = True
    request_queue_size = 512
    max_children = 200
udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
udp.bind(('::', 9999))
def echo():
    while True:
        data, peer = udp.recvfrom(2048)
        udp.sendto(data, peer)
threading.Thread(target=echo, daemon=True).start()
Server(('::', 8080), Answer).serve_forever()
`;

interface ProcessInfo {
  pid: number;
  uid: number;
  exec_id: string;
  binary: string;
  arguments?: string;
  cwd?: string;
  parents?: string[];
  container?: string;
  image?: string;
}
interface Flow {
  verdict: string;
  node_name: string;
  Summary: string;
  Type: string;
  source: { pod_name?: string };
  destination: { pod_name?: string };
  destination_names?: string[];
  l4?: {
    TCP?: { source_port: number; destination_port: number };
    UDP?: { source_port: number; destination_port: number };
  };
  l7?: { type: string; latency_ns?: string; dns: { query: string; rcode?: number; ips?: string[]; qtypes: string[] } };
  extensions?: {
    value: {
      report?: string;
      end_cause?: string;
      closed_by?: string;
      handshake_us?: number;
      rtt_us?: number;
      source_process?: ProcessInfo;
      destination_process?: ProcessInfo;
    };
  };
}

describe('processes', { skip }, () => {
  let lab: SharedLab;
  let addresses: Awaited<ReturnType<typeof createPods>>;

  before(async () => {
    lab = await sharedLab();
    const pod = (name: string, node: string, command: string[]) =>
      podOn(namespace, name, node, command, `${name}-container`);
    addresses = await createPods(lab, namespace, [
      pod('server', serverNode, ['python3', '-c', serverProgram]),
      pod('client', clientNode, ['sleep', 'infinity']),
      pod('neighbour', serverNode, ['sleep', 'infinity']),
      {
        apiVersion: 'networking.k8s.io/v1',
        kind: 'NetworkPolicy',
        metadata: { name: 'server-in', namespace },
        spec: {
          podSelector: { matchLabels: { app: 'server' } },
          policyTypes: ['Ingress'],
          ingress: [
            {
              from: [{ podSelector: { matchLabels: { app: 'client' } } }],
              ports: [{ port: 8080 }, { port: 8081 }, { port: 9999, protocol: 'UDP' }],
            },
          ],
        },
      },
    ]);
    await waitFor(
      'the server to answer',
      async () => (await inClient('curl', '-s', url(4, 8080))).stdout === 'ok',
      20_000,
      200,
    );
  });
  after(async () => {
    await deletePods(lab, namespace);
  });

  const inClient = (...argv: string[]) => inPod(namespace, 'client', ...argv);
  const url = (family: 4 | 6, port: number, path = '') => {
    const { v4, v6 } = addresses.get('server')!;
    return `http://${family === 4 ? v4 : `[${v6}]`}:${port}/${path}`;
  };
  async function observe(...args: string[]): Promise<Flow[]> {
    const done = await weir('observe', '-o', 'json', '--all', ...args);
    assert.equal(done.status, 0, done.stderr);
    return done.stdout
      .split('\n')
      .filter(Boolean)
      .flatMap((line) => (JSON.parse(line) as { flow?: Flow }).flow ?? []);
  }
  const found = (what: string, wanted: (flow: Flow) => boolean, ...args: string[]) =>
    waitFor(what, async () => (await observe(...args)).find(wanted), 10_000, 200);
  const info = (flow: Flow) => flow.extensions?.value ?? {};
  const since = () => new Date().toISOString();

  test('agents find flows by the process of either end, and leave them out', async () => {
    const from = since();
    await inClient('sh', '-c', `cd /tmp; curl -s ${url(4, 8080, 'found')}; true`);
    const args = ['--since', from, '--pod', `${namespace}/client`, '--port', '8080'];
    await found('a flow of curl', () => true, ...args, '--process', 'curl');
    for (const flow of await observe(...args, '--process', '/usr/bin/curl'))
      assert.equal(info(flow).source_process?.binary, '/usr/bin/curl');
    assert.deepEqual(await observe(...args, '--process', 'nobody'), []);
    for (const flow of await observe(...args, '--not', '--process', 'curl'))
      assert.notEqual(info(flow).source_process?.binary, '/usr/bin/curl');
  });

  test('exec and exit are events of their own, with the code', async () => {
    const from = since();
    await inClient('sh', '-c', 'ls /nowhere-to-be-found 2>/dev/null; true');
    type Told = { process: { binary: string; arguments: string; exec_id: string }; code?: number };
    const events = async () => {
      const args = ['--events', '--since', from, '-o', 'json', '--binary', 'ls'];
      const done = await weir('ps', `${namespace}/client`, ...args);
      assert.equal(done.status, 0, done.stderr);
      return done.stdout
        .split('\n')
        .filter(Boolean)
        .map((line) => JSON.parse(line) as { exec?: Told; exit?: Told; node_name: string });
    };
    const [exec, exit] = await waitFor(
      'exec and exit',
      async () => {
        const all = await events();
        return all.length >= 2 ? all : undefined;
      },
      10_000,
      200,
    );
    assert.equal(exec!.node_name, clientNode);
    assert.equal(exec!.exec?.process.arguments, '/nowhere-to-be-found');
    assert.equal(exit!.exit?.process.exec_id, exec!.exec?.process.exec_id);
    assert.equal(exit!.exit?.code, 2);
  });

  for (const family of [4, 6] as const)
    test(`a connection names the process that made it and the one that answers (IPv${family})`, async () => {
      const from = since();
      await inClient('sh', '-c', `cd /tmp; curl -s ${url(family, 8080, `named${family}`)}; true`);
      const args = ['--since', from, '--pod', `${namespace}/client`, '--port', '8080'];
      const begun = await found(
        'the beginning',
        (flow) => flow.node_name === clientNode && info(flow).report === undefined,
        ...args,
      );
      const curl = info(begun).source_process!;
      assert.equal(curl.binary, '/usr/bin/curl');
      assert.ok(curl.arguments?.includes(url(family, 8080, `named${family}`)), JSON.stringify(curl));
      assert.equal(curl.uid, 0);
      assert.equal(curl.container, 'client-container');
      assert.equal(curl.image, 'weir.local/toolbox:dev');
      assert.match(curl.parents![0]!, /\/(da)?sh\[\d+\]$/);
      const ended = await found(
        'the end at the server',
        (flow) => flow.node_name === serverNode && info(flow).report === 'end',
        ...args,
      );
      const worker = info(ended).destination_process!;
      assert.match(worker.binary, /python3/);
      assert.equal(worker.container, 'server-container');
      // The worker was forked by the process that listens.
      assert.match(worker.parents![0]!, /python3/);
      const near = await found(
        'the end at the client',
        (flow) => flow.node_name === clientNode && info(flow).report === 'end',
        ...args,
      );
      assert.equal(info(near).end_cause, 'closed');
      assert.ok(info(near).handshake_us! > 0 && info(near).rtt_us! > 0, JSON.stringify(info(near)));
      assert.equal(info(near).source_process!.exec_id, curl.exec_id);
    });

  test('two hundred short-lived programs are each told apart: no connection carries another one’s arguments', async () => {
    const from = since();
    const first = 20_000;
    const count = 200;
    const { v4 } = addresses.get('server')!;
    const script = `for i in $(seq ${first} ${first + count - 1}); do curl -s -o /dev/null --local-port $i http://${v4}:8080/$i & [ $((i % 20)) = 0 ] && wait; done; wait`;
    await inClient('bash', '-c', script);
    const flows = await waitFor(
      'all beginnings',
      async () => {
        const all = (await observe('--since', from, '--from-pod', `${namespace}/client`, '--to-port', '8080')).filter(
          (flow) =>
            flow.node_name === clientNode && info(flow).report === undefined && flow.l4!.TCP!.source_port >= first,
        );
        return new Set(all.map((flow) => flow.l4!.TCP!.source_port)).size === count ? all : undefined;
      },
      20_000,
      300,
    );
    for (const flow of flows) {
      const { binary, arguments: args } = info(flow).source_process!;
      assert.equal(binary, '/usr/bin/curl');
      const { source_port: port } = flow.l4!.TCP!;
      assert.equal(args, `-s -o /dev/null --local-port ${port} http://${v4}:8080/${port}`);
    }
  });

  test('forks that call no exec and are gone within a millisecond are named', async () => {
    const from = since();
    const { v4 } = addresses.get('server')!;
    await inClient('bash', '-c', `for i in $(seq 30); do (exec 3<>/dev/tcp/${v4}/8081) 2>/dev/null; done`);
    const flows = await waitFor(
      'all of them',
      async () => {
        const all = (await observe('--since', from, '--from-pod', `${namespace}/client`, '--to-port', '8081')).filter(
          (flow) => flow.node_name === clientNode && info(flow).report === undefined,
        );
        return all.length >= 30 ? all : undefined;
      },
      20_000,
      300,
    );
    assert.deepEqual([...new Set(flows.map((flow) => info(flow).source_process?.binary))], ['/usr/bin/bash']);
    assert.equal(new Set(flows.map((flow) => info(flow).source_process!.pid)).size, flows.length);
    // Nobody listens there: the connection was refused, and the flow says so.
    const end = await found('an end', (flow) => info(flow).report === 'end', '--since', from, '--to-port', '8081');
    assert.equal(info(end).end_cause, 'refused');
  });

  test('a SYN that policy drops carries its process; secrets in arguments do not show', async () => {
    const from = since();
    await inPod(
      namespace,
      'neighbour',
      'curl',
      '-s',
      '--max-time',
      '1',
      '-H',
      'Authorization: Bearer hunter2',
      url(4, 9090),
    );
    const dropped = await found('the drop', (flow) => flow.verdict === 'DROPPED', '--since', from, '--to-port', '9090');
    const { binary, arguments: args } = info(dropped).source_process!;
    assert.equal(binary, '/usr/bin/curl');
    assert.ok(args!.includes("'Authorization: Bearer ***'"), args ?? '');
  });

  test('datagrams name who sends them and who waits for them, connected sockets too', async () => {
    for (const connected of [false, true]) {
      const from = since();
      const { v6 } = addresses.get('server')!;
      const program =
        `import socket; s=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM); s.settimeout(3);` +
        (connected ? `s.connect(('${v6}',9999)); s.send(b'x');` : `s.sendto(b'x',('${v6}',9999));`) +
        `s.recv(10)`;
      const done = await inClient('python3', '-c', program);
      assert.equal(done.status, 0, done.stderr);
      const args = ['--since', from, '--from-pod', `${namespace}/client`, '--to-port', '9999', '--protocol', 'udp'];
      const sent = await found('the sender', (flow) => flow.node_name === clientNode, ...args);
      assert.ok(
        info(sent).source_process?.arguments?.includes('9999'),
        `connected: ${connected} ${JSON.stringify(sent)}`,
      );
      const received = await found('the receiver', (flow) => flow.node_name === serverNode, ...args);
      assert.ok(info(received).destination_process?.arguments?.includes('socketserver'));
    }
  });

  test('questions to the name server are flows with names, codes and latency, and name what is connected to later', async () => {
    const from = since();
    const name = `server.${namespace}.svc.cluster.local`;
    await lab.apply([
      {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name: 'server', namespace },
        spec: { clusterIP: 'None', selector: { app: 'server' }, ports: [{ port: 8080 }] },
      },
    ]);
    await waitFor(
      'the name',
      async () => (await inClient('curl', '-s', `http://${name}:8080/`)).stdout === 'ok',
      20_000,
      300,
    );
    await inClient('curl', '-s', `http://no-such-name.${namespace}.svc.cluster.local/`);
    const dns = ['--since', from, '--pod', `${namespace}/client`];
    const answer = await found(
      'an answer',
      (flow) => flow.l7?.type === 'RESPONSE' && flow.l7.dns.query === `${name}.` && (flow.l7.dns.ips ?? []).length > 0,
      ...dns,
    );
    assert.ok(Number(answer.l7!.latency_ns) > 0);
    const unknown = await found(
      'no such name',
      (flow) => flow.l7?.dns.rcode === 3 && flow.l7.type === 'RESPONSE',
      ...dns,
    );
    assert.match(unknown.Summary, /NXDOMAIN/);
    const named = await found(
      'a connection with its name',
      (flow) => flow.Type === 'L3_L4' && (flow.destination_names ?? []).includes(name),
      ...dns,
    );
    assert.equal(info(named).source_process?.binary, '/usr/bin/curl');
    await inClient('env', 'RES_OPTIONS=use-vc', 'curl', '-s', `http://no-such-stream.${namespace}.svc.cluster.local/`);
    const streamed = await found(
      'an answer over TCP',
      (flow) =>
        flow.l7?.type === 'RESPONSE' && flow.l4?.TCP !== undefined && flow.l7.dns.query.startsWith('no-such-stream.'),
      ...dns,
    );
    assert.equal(streamed.l7!.dns.rcode, 3);
    assert.ok(Number(streamed.l7!.latency_ns) > 0);
  });

  test('what began while the agent was dead is known when it is back', async () => {
    const from = since();
    await stopAgent(labName, clientNode, 'kill');
    try {
      const { v4 } = addresses.get('server')!;
      const program = `import socket,time; s=socket.create_connection(('${v4}',8080)); time.sleep(6); s.sendall(b'GET / HTTP/1.1\\r\\n\\r\\n'); s.recv(100)`;
      const running = inClient('python3', '-c', program);
      await waitFor(
        'the connection to be there',
        async () =>
          (await inClient('sh', '-c', 'cat /proc/net/tcp')).stdout.split('\n').filter((line) => /:1F90 01 /.test(line))
            .length > 0,
        5_000,
        100,
      );
      await startAgent(labName, clientNode);
      await running;
    } finally {
      await startAgent(labName, clientNode).catch(() => {});
    }
    const end = await found(
      'its end',
      (flow) =>
        flow.node_name === clientNode &&
        info(flow).report === 'end' &&
        (info(flow).source_process?.arguments ?? '').includes('sleep(6)'),
      '--since',
      from,
      '--from-pod',
      `${namespace}/client`,
    );
    assert.match(info(end).source_process!.binary, /python3/);
  });

  test('weir ps shows the tree of a pod and whom it talks to', async () => {
    await inClient('curl', '-s', url(4, 8080));
    const shown = await waitFor(
      'the peers',
      async () => {
        const { stdout } = await weir('ps', `${namespace}/server`);
        return stdout.includes('←') ? stdout : undefined;
      },
      10_000,
      200,
    );
    assert.match(shown, new RegExp(`^${serverNode}: ${namespace}/server$`, 'm'));
    assert.match(shown, /^ {2}server-container \(weir\.local\/toolbox:dev\)$/m);
    assert.match(shown, /^ {4}\d+ +\S*python3\S* -c /m);
    assert.match(shown, new RegExp(`← ${namespace}/client:8080`));
  });
});
