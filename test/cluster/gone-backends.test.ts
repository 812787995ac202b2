// What a client of a Service notices when the backend of its socket goes: an error at once, and the next socket gets another
// backend. Backends here are a server on a node and an address where nobody is, so that nothing but the agent can tell.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { after, before, describe, test } from 'node:test';
import { inNode } from '../../lab/lab.ts';
import { labName, nodeNames, type SharedLab, sharedLab, waitFor } from './shared-lab.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const namespace = 'gone-backends';
const nobody = '192.0.2.77';
const port = 7353;
const node = nodeNames.real[0];

/** What runs in a node ends with its input. */
const untilInputEnds = `
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
`;

const server = `
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('0.0.0.0', ${port}))
print('ready', flush=True)
while True:
    data, who = s.recvfrom(100)
    s.sendto(data, who)
`;

/** Connects until its backend is the one where nobody is, says so, and then how its socket ends; then it asks anew. */
const client = `
import socket
def connect():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.connect((sys.argv[1], 53)); s.settimeout(0.3); s.send(b'x')
    return s
while True:
    s = connect()
    try: s.recv(10)
    except TimeoutError: break
print('silent', s.getpeername()[0], flush=True)
s.settimeout(10)
try: s.recv(10)
except OSError as error: print('error', error.errno, flush=True)
answers = 0
for _ in range(20): answers += connect().recv(10) == b'x'
print('answers', answers, flush=True)
`;

function start(script: string, ...args: string[]) {
  const [command, ...rest] = inNode(labName, node, ['python3', '-c', untilInputEnds + script, ...args]);
  const child = spawn(command!, rest, { stdio: ['pipe', 'pipe', 'inherit'] });
  let output = '';
  child.stdout.on('data', (part) => (output += part));
  const line = (word: string) =>
    waitFor(
      `"${word}"`,
      async () => output.split('\n').find((each) => each.startsWith(word) && output.includes(`${each}\n`)),
      20_000,
      5,
    );
  return { line, stop: () => child.stdin.end() };
}

describe('backends that go', { skip }, () => {
  let lab: SharedLab;
  let server4 = '';
  let vip = '';
  const slice = (addresses: readonly string[]) => ({
    apiVersion: 'discovery.k8s.io/v1',
    kind: 'EndpointSlice',
    metadata: { name: 'dns-1', namespace, labels: { 'kubernetes.io/service-name': 'dns' } },
    addressType: 'IPv4',
    ports: [{ port, protocol: 'UDP' }],
    endpoints: addresses.map((each) => ({ addresses: [each] })),
  });

  before(async () => {
    lab = await sharedLab();
    server4 = (await lab.status()).nodes.find((each) => each.name === node)!.addresses[0]!;
    await lab.apply([
      { apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace } },
      {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name: 'dns', namespace },
        spec: { ports: [{ port: 53, targetPort: port, protocol: 'UDP' }] },
      },
      slice([server4, nobody]),
    ]);
    vip = await lab.kubectl(['get', 'service', '-n', namespace, 'dns', '-o', 'jsonpath={.spec.clusterIP}']);
    await waitFor(
      'the agent to know both backends',
      async () => {
        const { frontends } = await lab.agent<{ frontends: { backends: unknown[] }[] }>(
          node,
          `/v1/services/${encodeURIComponent(`${namespace}/dns`)}`,
        );
        return frontends.some((each) => each.backends.length === 2);
      },
      20_000,
    );
  });
  after(async () => {
    await lab?.kubectl(['delete', 'namespace', namespace, '--wait=false']);
  });

  test('a UDP client whose backend goes gets an error within a second, and sees the Service as its peer until then', async () => {
    const echo = start(server);
    await echo.line('ready');
    const asking = start(client, vip);
    try {
      assert.equal(await asking.line('silent'), `silent ${vip}`);
      await lab.apply([slice([server4])]);
      const applied = performance.now();
      assert.equal(await asking.line('error'), 'error 103'); // ECONNABORTED
      assert.ok(performance.now() - applied < 1_000, `${performance.now() - applied} ms`);
      assert.equal(await asking.line('answers'), 'answers 20');
    } finally {
      asking.stop();
      echo.stop();
    }
  });
});
