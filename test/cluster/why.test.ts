// `weir why` names the layer that broke: twenty faults, made on real pods, one test each.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { nodeExec, startAgent, stopAgent, worldExec } from '../../lab/lab.ts';
import type { WhyAnswer } from '../../src/observe/why/evidence.ts';
import { createPods, deletePods, inPod, podOn, weir } from './process-scene.ts';
import { labName, nodeNames, type SharedLab, sharedLab, waitFor } from './shared-lab.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const namespace = 'why';
const [serverNode, clientNode] = nodeNames.real;

/** Port 8080 answers, 8082 resets after the request, 8083 sends a lot; on 53 a name server that fails as its names say. */
const serverProgram = `
import socket, struct, threading
def serve(port, answer):
    listener = socket.create_server(('::', port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64)
    while True:
        peer, _ = listener.accept()
        threading.Thread(target=answer, args=(peer,), daemon=True).start()
def ok(peer):
    peer.recv(4096)
    peer.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\nok')
    peer.close()
def reset(peer):
    peer.recv(4096)
    peer.sendall(b'HTTP/1.1 200 OK\\r\\n')
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    peer.close()
def stay(peer):
    peer.sendall(b'x')
    while peer.recv(4096):
        pass
for port, answer in ((8080, ok), (8082, reset), (8083, stay)):
    threading.Thread(target=serve, args=(port, answer), daemon=True).start()
names = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
names.bind(('::', 53))
while True:
    query, peer = names.recvfrom(512)
    first = query[13:13 + query[12]]
    code = {b'broken': 2, b'empty': 0}.get(first)
    if code is not None:
        names.sendto(query[:2] + bytes([0x84, code]) + query[4:6] + b'\\0\\0\\0\\0\\0\\0' + query[12:].split(b'\\0\\0\\x29')[0], peer)
`;

describe('why', { skip }, () => {
  let lab: SharedLab;
  const ip = new Map<string, string>();

  const pod = (name: string, node: string, command: string[]) => podOn(namespace, name, node, command);
  const policy = (name: string, app: string, type: 'Ingress' | 'Egress') => ({
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: { name, namespace },
    spec: { podSelector: { matchLabels: { app } }, policyTypes: [type] },
  });
  const service = (name: string, app: string, more: object = {}) => ({
    apiVersion: 'v1',
    kind: 'Service',
    metadata: { name, namespace },
    spec: { selector: { app }, ports: [{ port: 80, targetPort: 8080 }], ...more },
  });

  before(async () => {
    lab = await sharedLab();
    const addresses = await createPods(lab, namespace, [
      pod('server', serverNode, ['python3', '-c', serverProgram]),
      ...['client', 'locked', 'quiet', 'stuck'].map((name) => pod(name, clientNode, ['sleep', 'infinity'])),
      pod('guarded', serverNode, ['python3', '-m', 'http.server', '8080']),
      pod('barred', serverNode, ['python3', '-m', 'http.server', '8080']),
      policy('nothing-out', 'locked', 'Egress'),
      policy('nothing-in', 'guarded', 'Ingress'),
      {
        apiVersion: 'cilium.io/v2',
        kind: 'CiliumNetworkPolicy',
        metadata: { name: 'client-barred', namespace },
        spec: {
          endpointSelector: { matchLabels: { app: 'barred' } },
          ingress: [{ fromEntities: ['all'] }],
          ingressDeny: [{ fromEndpoints: [{ matchLabels: { app: 'client' } }] }],
        },
      },
      service('nobody', 'none'),
      service('picky', 'server', { type: 'LoadBalancer', loadBalancerSourceRanges: ['192.0.2.0/24'] }),
    ]);
    for (const [name, { v4 }] of addresses) ip.set(name, v4);
    await lab.kubectl([
      ...['patch', 'service', 'picky', '-n', namespace, '--subresource=status', '--type=merge', '-p'],
      JSON.stringify({ status: { loadBalancer: { ingress: [{ ip: '10.77.9.9' }] } } }),
    ]);
    await waitFor(
      'policies and services to be in force',
      async () => {
        for (const node of nodeNames.real) {
          const rows = await lab.agent<{ namespace: string }[]>(node, '/v1/policies');
          const services = await lab.agent<{ namespace: string; name: string; frontends: { address: string }[] }[]>(
            node,
            '/v1/services',
          );
          const picky = services.find((each) => each.namespace === namespace && each.name === 'picky');
          if (rows.filter((row) => row.namespace === namespace).length < 3) return undefined;
          if (!picky?.frontends.some((each) => each.address === '10.77.9.9')) return undefined;
          const { pending } = await lab.agent<{ pending: boolean }>(node, '/v1/sync');
          if (pending) return undefined;
        }
        return true;
      },
      20_000,
    );
  });
  after(async () => {
    await deletePods(lab, namespace);
  });

  const exec = (name: string, ...argv: string[]) => inPod(namespace, name, ...argv);
  const curl = (name: string, url: string, ...more: string[]) =>
    exec(name, 'curl', '-sS', '-o', '/dev/null', '--max-time', '1', ...more, url);

  async function why(...args: string[]): Promise<WhyAnswer[]> {
    const done = await weir('why', '-o', 'json', ...args);
    assert.ok(done.stdout.startsWith('['), done.stderr);
    return JSON.parse(done.stdout) as WhyAnswer[];
  }
  /** The first answer is the cause, as soon as the nodes have told of it. */
  async function expectCause(cause: string, ...args: string[]): Promise<WhyAnswer> {
    let seen: WhyAnswer[] = [];
    await waitFor(
      `the cause ${cause}`,
      async () => {
        seen = await why(...args);
        return seen[0]!.cause === cause || undefined;
      },
      5_000,
      200,
    ).catch((error: Error) => {
      throw new Error(`${error.message}\n${JSON.stringify(seen, undefined, 1)}`);
    });
    assert.ok(seen[0]!.do.length > 10, 'it says what to do');
    return seen[0]!;
  }
  const now = () => new Date().toISOString();

  test('1: the name does not exist', async () => {
    const since = now();
    await curl('client', `http://no-such.${namespace}/`);
    const { says, evidence } = await expectCause(
      'name-not-found',
      `${namespace}/client`,
      `no-such.${namespace}.svc`,
      '--since',
      since,
    );
    assert.match(says, /NXDOMAIN/);
    assert.ok(evidence.length > 0);
  });

  test('2: the name server fails', async () => {
    const since = now();
    await exec('client', 'dig', '+tries=1', '+time=1', `@${ip.get('server')}`, 'broken.example.com');
    assert.match(
      (await expectCause('name-server-fails', `${namespace}/client`, 'broken.example.com', '--since', since)).says,
      /SERVFAIL/,
    );
  });

  test('3: the name server is silent', async () => {
    const since = now();
    await exec('client', 'dig', '+tries=1', '+time=1', `@${ip.get('server')}`, 'silent.example.com');
    await expectCause('name-server-silent', `${namespace}/client`, 'silent.example.com', '--since', since);
  });

  test('4: policy keeps questions from the name server', async () => {
    const since = now();
    await curl('locked', 'http://www.example.com/');
    assert.match(
      (await expectCause('name-server-denied', `${namespace}/locked`, 'www.example.com', '--since', since)).says,
      /nothing-out/,
    );
  });

  test('5: the name has no address', async () => {
    const since = now();
    await exec('client', 'dig', '+tries=1', '+time=1', `@${ip.get('server')}`, 'empty.example.com');
    await expectCause('name-without-address', `${namespace}/client`, 'empty.example.com', '--since', since);
  });

  test('6: policy of the sender', async () => {
    const since = now();
    await curl('locked', `http://${ip.get('server')}:8080/`);
    const { says, evidence } = await expectCause(
      'policy-egress',
      `${namespace}/locked`,
      `${namespace}/server:8080`,
      '--since',
      since,
    );
    assert.match(says, /NetworkPolicy why\/nothing-out/);
    assert.match(evidence[0]!, /\/usr\/bin\/curl\[\d+\]/);
  });

  test('7: policy of the receiver, on another node', async () => {
    const since = now();
    await curl('client', `http://${ip.get('guarded')}:8080/`);
    assert.match(
      (await expectCause('policy-ingress', `${namespace}/client`, `${namespace}/guarded:8080`, '--since', since)).says,
      /why\/nothing-in/,
    );
  });

  test('8: a denial by name', async () => {
    const since = now();
    await curl('client', `http://${ip.get('barred')}:8080/`);
    assert.match(
      (await expectCause('policy-ingress', `${namespace}/client`, `${namespace}/barred:8080`, '--since', since)).says,
      /CiliumNetworkPolicy why\/client-barred/,
    );
  });

  test('9: nothing was tried, and policy would deny it', async () => {
    await expectCause('policy-would-deny', `${namespace}/quiet`, `${namespace}/guarded:8080`);
  });

  test('10: nothing was tried, and policy would allow it', async () => {
    assert.match(
      (await expectCause('never-tried', `${namespace}/quiet`, `${namespace}/server:8080`)).says,
      /policy would allow it/,
    );
  });

  test('11: an address that no pod has', async () => {
    const since = now();
    const unused = ip.get('client')!.replace(/\d+$/, '249');
    await curl('client', `http://${unused}/`);
    await expectCause('no-such-pod', `${namespace}/client`, `${unused}:80`, '--since', since);
  });

  test('12: no route', async () => {
    const since = now();
    await nodeExec(labName, clientNode, ['ip', 'route', 'add', 'unreachable', '203.0.113.0/24']);
    try {
      await curl('client', 'http://203.0.113.7/');
    } finally {
      await nodeExec(labName, clientNode, ['ip', 'route', 'del', '203.0.113.0/24']);
    }
    await expectCause('no-route', `${namespace}/client`, '203.0.113.7:80', '--since', since);
  });

  test('13: a service that nobody serves', async () => {
    const since = now();
    await curl('client', `http://nobody.${namespace}/`);
    const { says, evidence } = await expectCause(
      'service-without-backend',
      `${namespace}/client`,
      `${namespace}/nobody`,
      '--since',
      since,
    );
    assert.match(says, /why\/nobody/);
    assert.match(evidence.join('\n'), /curl/);
  });

  test('14: the source ranges of a service', async () => {
    const since = now();
    await curl('client', 'http://10.77.9.9/');
    await expectCause('service-source-range', `${namespace}/client`, `${namespace}/picky`, '--since', since);
  });

  test('15: nobody answers', async () => {
    const since = now();
    await curl('client', 'http://198.51.100.77/', '--max-time', '2');
    await expectCause('no-answer', `${namespace}/client`, '198.51.100.77:80', '--since', since);
  });

  test('16: nobody listens', async () => {
    const since = now();
    await curl('client', `http://${ip.get('server')}:8099/`);
    await expectCause('refused', `${namespace}/client`, `${namespace}/server:8099`, '--since', since);
  });

  test('17: the server resets', async () => {
    const since = now();
    await curl('client', `http://${ip.get('server')}:8082/`);
    assert.match(
      (await expectCause('reset-by-server', `${namespace}/client`, `${namespace}/server:8082`, '--since', since)).says,
      /why\/server resets/,
    );
  });

  test('18: the client resets', async () => {
    const since = now();
    const program = `import socket,struct; s=socket.create_connection(('${ip.get('server')}',8083)); s.recv(1); s.setsockopt(socket.SOL_SOCKET,socket.SO_LINGER,struct.pack('ii',1,0)); s.close()`;
    await exec('client', 'python3', '-c', program);
    await expectCause('reset-by-client', `${namespace}/client`, `${namespace}/server:8083`, '--since', since);
  });

  test('19: a router says that packets are too large', async () => {
    // Both ends stay until the diagnosis was made.
    const program = `import os,socket,time; s=socket.create_connection(('198.51.100.1',7799))
while not os.path.exists('/tmp/enough'): time.sleep(0.05)`;
    const listener = worldExec(labName, [
      'timeout',
      '30',
      'python3',
      '-c',
      "import socket; s=socket.create_server(('198.51.100.1',7799)); s.accept()[0].recv(1)",
    ]);
    let connecting: Promise<unknown> | undefined;
    try {
      await waitFor(
        'the listener',
        async () => (await worldExec(labName, ['ss', '-Hltn', 'sport = :7799'])).stdout !== '',
        10_000,
      );
      const since = now();
      connecting = exec('client', 'python3', '-c', program);
      const client = ip.get('client')!;
      const row = await waitFor(
        'the connection',
        async () =>
          (
            await lab.agent<{ source: string; sourcePort: number; destinationPort: number; state: string }[]>(
              clientNode,
              `/v1/conntrack?ip=${client}&port=7799`,
            )
          ).find((each) => each.state === 'open'),
        5_000,
        100,
      );
      const { addresses } = (await lab.agent<{ name: string; addresses: string[] }[]>(clientNode, '/v1/nodes')).find(
        (each) => each.name === clientNode,
      )!;
      const gateway = addresses.find((each) => !each.includes(':'))!;
      const tell = `
import socket, struct
def checksum(data):
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    while total >> 16: total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff
inner = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 1500, 1, 0x4000, 63, 6, 0, socket.inet_aton('${client}'), socket.inet_aton('198.51.100.1')) + struct.pack('!HHI', ${row.sourcePort}, 7799, 0)
body = struct.pack('!BBHHH', 3, 4, 0, 0, 1300) + inner
body = body[:2] + struct.pack('!H', checksum(body)) + body[4:]
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
s.bind(('198.51.100.1', 0))
s.sendto(body, ('${client}', 0))
`;
      const sent = await worldExec(labName, [
        'sh',
        '-c',
        `ip route replace ${client}/32 via ${gateway} && python3 -c "$1"; code=$?; ip route del ${client}/32; exit $code`,
        'sh',
        tell,
      ]);
      assert.equal(sent.status, 0, sent.stderr);
      assert.match(
        (await expectCause('mtu', `${namespace}/client`, '198.51.100.1:7799', '--since', since)).says,
        /too large/,
      );
    } finally {
      await exec('client', 'touch', '/tmp/enough');
      await Promise.all([connecting, listener]);
    }
  });

  test('20: the agent of the sender’s node is silent; and when it is back, what works is said to work', async () => {
    await stopAgent(labName, clientNode, 'kill');
    try {
      const [first] = await why(`${namespace}/client`, `${namespace}/server:8080`);
      assert.ok(['source-unknown', 'agent-silent'].includes(first!.cause), JSON.stringify(first));
      assert.ok(
        (await why(`${namespace}/client`, `${namespace}/server:8080`)).some((each) => each.cause === 'agent-silent'),
      );
    } finally {
      await startAgent(labName, clientNode);
    }
    await waitFor(
      'the agent',
      async () => (await lab.agent<{ synced: boolean }>(clientNode, '/v1/sync').catch(() => undefined))?.synced,
      20_000,
      200,
    );
    const since = now();
    assert.equal((await curl('client', `http://${ip.get('server')}:8080/`)).status, 0);
    await expectCause('works', `${namespace}/client`, `${namespace}/server:8080`, '--since', since);
  });

  test('the answer for people is the layer, the reason, what to do and the flows', async () => {
    await curl('locked', `http://${ip.get('server')}:8080/`);
    const { stdout } = await weir('why', `${namespace}/locked`, `${ip.get('server')}:8080`);
    assert.match(
      stdout,
      /^policy: the connection is denied by policy, on the way out of why\/locked port 8080: NetworkPolicy why\/nothing-out$/m,
    );
    assert.match(
      stdout,
      /^ {2}\d\d:\d\d:\d\d\.\d{3} node2: why\/locked -> why\/server:8080 \(\/usr\/bin\/curl\[\d+\]\) POLICY_DENIED$/m,
    );
  });
});
