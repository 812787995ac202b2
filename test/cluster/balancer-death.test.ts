// What becomes of connections from outside when the node that balances them dies with everything on it, and another takes
// the address over: with direct return they go on, with translation they are reset soon.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { after, before, describe, test } from 'node:test';
import {
  restartNode,
  silentProgress,
  startAgent,
  stopAgent,
  stopNode,
  waitForAgent,
  worldCommand,
} from '../../lab/lab.ts';
import { addressPool, poolNamespace } from './address-pool.ts';
import { labName, nodeNames, type SharedLab, sharedLab, waitFor } from './shared-lab.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const namespace = 'lb-death';
const connections = 8;
const allNodes = [...nodeNames.real, ...nodeNames.bare];
/** So that it is the nodes without kubelet that balance: they are dead and back in seconds. */
const excluded = 'node.kubernetes.io/exclude-from-external-load-balancers';

/** Gives back what it gets, behind its name. */
const server = `
import os, socket, socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(os.environ['HOSTNAME'].encode() + b'\\n')
        while (data := self.request.recv(100)): self.request.sendall(data)
class Server(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6
    daemon_threads = allow_reuse_address = True
Server(('::', 8080), Echo).serve_forever()
`;

/** Keeps connections busy, and says every tenth of a second how far each has come. */
const talker = `
const net = require('node:net');
const [address, count] = process.argv.slice(1);
const all = Array.from({ length: Number(count) }, () => {
  const each = { echoes: 0 };
  const socket = net.connect(80, address);
  socket.setEncoding('utf8').on('data', (text) => {
    const end = each.pod === undefined ? text.indexOf('\\n') : -1;
    if (end >= 0) each.pod = text.slice(0, end);
    each.echoes += text.length - end - 1;
  });
  const timer = setInterval(() => socket.write('x'), 20);
  socket.on('error', (error) => { each.error = error.code; });
  socket.on('close', () => { each.closed = true; clearInterval(timer); });
  return each;
});
setInterval(() => console.log(JSON.stringify(all)), 100);
`;

interface Talk {
  readonly pod?: string;
  readonly echoes: number;
  readonly error?: string;
  readonly closed?: boolean;
}

describe('the death of a balancing node', { skip }, () => {
  let lab: SharedLab;
  const talkers: ChildProcess[] = [];

  /** Answers how the connections of a new client stand. */
  async function talk(address: string): Promise<() => readonly Talk[]> {
    const argv = [process.execPath, '-e', talker, address, String(connections)];
    const [program = '', ...args] = await worldCommand(labName, argv);
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    talkers.push(child);
    let last: Talk[] = [];
    let rest = '';
    child.stdout.setEncoding('utf8').on('data', (part: string) => {
      const lines = (rest + part).split('\n');
      rest = lines.pop()!;
      const line = lines.at(-1);
      if (line !== undefined) last = JSON.parse(line) as Talk[];
    });
    return () => last;
  }

  async function inMode(mode: 'dsr' | 'snat', nodes: readonly string[] = allNodes): Promise<void> {
    for (const node of nodes) {
      await stopAgent(labName, node, 'ask');
      await startAgent(labName, node, [`--lb-mode=${mode}`]);
    }
    for (const node of nodes) await waitForAgent(labName, node);
  }

  /** The one node that says it answers for an address. */
  const holder = (address: string, except?: string) =>
    waitFor(
      `a node to answer for ${address}`,
      async () => {
        const found: string[] = [];
        for (const node of allNodes) {
          if (node === except) continue;
          const rows = await lab.agent<{ address: string; here: boolean }[]>(node, '/v1/announcements').catch(() => []);
          if (rows.some((row) => row.address === address && row.here)) found.push(node);
        }
        return found.length === 1 ? found[0] : undefined;
      },
      20_000,
      20,
    );

  before(async () => {
    lab = await sharedLab();
    for (const node of nodeNames.real) await lab.kubectl(['label', '--overwrite', 'node', node, `${excluded}=`]);
    await poolNamespace(lab, namespace);
    await lab.apply([
      addressPool(namespace, namespace, {
        blocks: [
          { start: '10.77.0.210', stop: '10.77.0.213' },
          { start: 'fd77::d0', stop: 'fd77::d3' },
        ],
      }),
      ...nodeNames.real.flatMap((node) =>
        [1, 2].map((number) => ({
          apiVersion: 'v1',
          kind: 'Pod',
          metadata: { name: `echo-${node}-${number}`, namespace, labels: { app: 'echo' } },
          spec: {
            nodeName: node,
            terminationGracePeriodSeconds: 0,
            containers: [
              {
                name: 'echo',
                image: 'weir.local/toolbox:dev',
                imagePullPolicy: 'Never',
                command: ['python3', '-c', server],
                readinessProbe: { tcpSocket: { port: 8080 }, periodSeconds: 1 },
              },
            ],
          },
        })),
      ),
      {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name: 'echo', namespace },
        spec: {
          type: 'LoadBalancer',
          ipFamilyPolicy: 'RequireDualStack',
          selector: { app: 'echo' },
          ports: [{ port: 80, targetPort: 8080 }],
        },
      },
    ]);
    await lab.kubectl(['-n', namespace, 'wait', '--for=condition=Ready', 'pod', '--all', '--timeout=60s']);
  });
  after(async () => {
    for (const each of talkers) each.kill();
    if (lab === undefined) return;
    for (const node of nodeNames.real) await lab.kubectl(['label', 'node', node, `${excluded}-`]);
    for (const node of allNodes) {
      await stopAgent(labName, node, 'ask');
      await startAgent(labName, node);
      await waitForAgent(labName, node);
    }
    await lab.kubectl(['delete', 'namespace', namespace, '--wait=false', '--ignore-not-found']);
    await lab.kubectl(['delete', 'ippool', namespace, '--ignore-not-found']);
  });

  const addresses = () =>
    waitFor(
      'addresses',
      async () => {
        const seen = JSON.parse(await lab.kubectl(['-n', namespace, 'get', 'service', 'echo', '-o', 'json']));
        const found = (seen.status.loadBalancer?.ingress ?? []).map((each: { ip: string }) => each.ip) as string[];
        return found.length === 2 ? found : undefined;
      },
      15_000,
    );

  /** Connections to each address while the node that balances them dies; `then` says what becomes of them. */
  async function whenItDies(
    mode: 'dsr' | 'snat',
    then: (talks: () => readonly Talk[], address: string, deadAtMs: number) => Promise<void>,
  ): Promise<void> {
    await inMode(mode);
    for (const address of await addresses()) {
      const node = await holder(address);
      assert.ok((nodeNames.bare as readonly string[]).includes(node), `${node} has no pod of the service`);
      const talks = await talk(address);
      await waitFor(
        'all connections to be busy',
        async () => talks().length > 0 && talks().every((each) => each.echoes > 20),
        15_000,
        50,
      );
      assert.ok(new Set(talks().map((each) => each.pod)).size > 1, 'several backends');
      await stopNode(labName, node);
      const deadAtMs = Date.now();
      try {
        assert.notEqual(await holder(address, node), node);
        await then(talks, address, deadAtMs);
      } finally {
        await restartNode(lab.record, lab.record.nodes.find((each) => each.name === node)!, silentProgress);
        await inMode(mode, [node]);
      }
    }
  }

  test('with direct return connections go on through the node that takes over', async (t) => {
    await whenItDies('dsr', async (talks, address, deadAtMs) => {
      const before = talks().map((each) => each.echoes);
      const onward = async () => talks().every((each, i) => each.closed || each.echoes > before[i]! + 50);
      await waitFor('all connections to go on, or to end', onward, 20_000, 20);
      t.diagnostic(`${address}: all went on within ${Date.now() - deadAtMs} ms`);
      assert.deepEqual(
        talks().filter((each) => each.closed || each.error !== undefined),
        [],
      );
    });
  });

  test('with translation they are reset soon, and new ones are served', async (t) => {
    await whenItDies('snat', async (talks, address, deadAtMs) => {
      await waitFor('all connections to end', async () => talks().every((each) => each.closed), 15_000, 20);
      t.diagnostic(`${address}: all were reset within ${Date.now() - deadAtMs} ms`);
      assert.deepEqual([...new Set(talks().map((each) => each.error))], ['ECONNRESET']);
      const again = await talk(address);
      await waitFor(
        'new connections',
        async () => again().length > 0 && again().every((each) => each.echoes > 5),
        15_000,
        20,
      );
    });
  });
});
