// The commands as a user runs them, against agents that answer what they are told to.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';
import { WeirError } from '../../core/errors.ts';
import { type ApiHandler, type LocalApi, serveLocalApi } from '../agent/local-api.ts';

const main = fileURLToPath(new URL('./main.ts', import.meta.url));
const runner = fileURLToPath(new URL('./testdata/run-commands.ts', import.meta.url));
const quiet = { debug() {}, info() {}, warn() {}, error() {} };
let home = '';
const servers: LocalApi[] = [];

const endpoint = (node: string, id: number) => ({
  id,
  node,
  namespace: 'shop',
  pod: `web-${id}`,
  containerId: 'c',
  interfaceName: 'eth0',
  ifindex: 100 + id,
  ipv4: `10.0.0.${id}`,
  mac: '0a:57:00:00:00:01',
  identity: 300,
  identityLabels: ['k8s:app=web', 'k8s:io.kubernetes.pod.namespace=shop'],
  labels: { app: 'web' },
  namedPorts: [],
  state: 'ready',
  netns: '/n',
  createdAtMs: 0,
});
const policyRows = [
  {
    direction: 'ingress',
    peer: { class: 0 },
    protocol: 0,
    port: 0,
    prefixBits: 0,
    allow: false,
    stagedAllow: false,
    cookie: 1,
    rules: [{ kind: 'NetworkPolicy', namespace: 'shop', name: 'deny', direction: 'ingress', ruleIndex: -1 }],
  },
];
const addresses = [
  { address: '0.0.0.0/0', class: 1, identity: 9, labels: ['reserved:world-ipv4'] },
  { address: '10.0.0.0/24', class: 3, identity: 3, labels: ['reserved:unmanaged'] },
  {
    address: '10.0.0.1',
    class: 5,
    identity: 300,
    kind: 'pod',
    namespace: 'shop',
    pod: 'web-1',
    node: 'n1',
    labels: [],
  },
];

function routes(node: string, healthy: boolean): Record<string, ApiHandler> {
  const problems = healthy ? [] : ['not following pods: gone'];
  return {
    '/v1/health': () => ({ node, healthy, problems }),
    '/v1/status': () => ({
      node,
      healthy,
      problems,
      version: '9.9.9',
      uptimeSeconds: 61,
      startedAt: '2026-01-01T00:00:00.000Z',
      memoryBytes: 1 << 20,
      apiServer: { server: 'https://x', connected: healthy, watches: [] },
      sync: { synced: true, passes: 3, lastMs: 1 },
      tables: [{ name: 'endpoints', rows: 2, revision: 7, initialized: true }],
      reconcilers: [
        {
          name: 'routes',
          done: 1,
          pending: 1,
          error: 1,
          pruned: { done: true },
          unfinished: [{ key: '10.1.0.0/24', operation: 'update', attempts: 3, error: 'no route' }],
        },
      ],
      maps: [
        {
          name: 'ipcache',
          rows: 64,
          capacity: 128,
          failing: [],
          adopted: { same: 1, changed: 0, added: 0, pruned: 0 },
        },
      ],
      programs: [{ name: 'pod', id: 5, verifiedInstructions: 100, jitedBytes: 2048 }],
      attachments: [{ name: 'pod-1', ifindex: 1, programId: 5 }],
      counters: { events_lost: 4 },
      ipam: {
        pools: [{ cidr: '10.0.0.0/24', capacity: 254, used: 2, resting: 1 }],
        leaks: [{ address: '10.0.0.9', owner: 'x/eth0' }],
      },
    }),
    '/v1/endpoints': () => [endpoint(node, 1), endpoint(node, 2)],
    '/v1/endpoints/': (_, id) =>
      id === 'shop/web-1' && node === 'n1' ? { ...endpoint(node, 1), policy: policyRows } : undefined,
    '/v1/identities': () => [{ id: 300, labels: ['k8s:app=web', 'k8s:io.kubernetes.pod.namespace=shop'] }],
    '/v1/policies': () => [
      {
        kind: 'NetworkPolicy',
        key: 'shop/broken',
        namespace: 'shop',
        name: 'broken',
        staged: false,
        isolates: { ingress: true, egress: false },
        error: 'spec.ingress[0].from[0] has nothing; spec.x is not a field here',
        pods: [`shop/web-${node}`],
        rows: 2,
      },
    ],
    '/v1/nodes': () => [{ name: 'n1', addresses: ['10.9.0.1'], podCidrs: ['10.0.0.0/24'], clusterPools: [] }],
    '/v1/addresses': () => addresses,
    '/v1/conntrack': (query) => {
      if (query.get('verdict') === 'boom') throw new WeirError('CONFIG_INVALID', 'verdict=boom');
      return [
        {
          source: '10.0.0.1',
          sourcePort: 4000,
          destination: 'fd00::2',
          destinationPort: 80,
          protocol: Number(query.get('protocol') ?? 6),
          state: 'open',
          verdict: 'forwarded',
          sourceIdentity: 300,
          destinationIdentity: 2,
          packets: [3, 2],
          bytes: [300, 2000],
          idleSeconds: 1.25,
          lifetimeSeconds: 60,
        },
      ];
    },
    '/v1/drops': () => [
      { reason: 'POLICY_DENIED', number: 133, packets: 5, bytes: 500, meaning: 'no rule', action: 'add a rule' },
    ],
    '/v1/flow-status': () => undefined,
  };
}

before(async () => {
  home = mkdtempSync(join(tmpdir(), 'weir-cli-'));
  mkdirSync(join(home, 'weir/contexts'), { recursive: true });
  for (const node of ['n1', 'n2']) {
    const path = join(home, `${node}.sock`);
    const cni = async () => undefined;
    servers.push(await serveLocalApi({ path, routes: routes(node, node === 'n1'), cni, log: quiet }));
  }
  const node = (name: string) => ({ name, socket: join(home, `${name}.sock`) });
  const write = (name: string, nodes: unknown) =>
    writeFileSync(join(home, `weir/contexts/${name}.json`), JSON.stringify({ name, nodes }));
  write('two', [node('n1'), node('n2')]);
  write('one', [node('n1')]);
  write('broken', [node('n1'), node('gone')]);
});
after(async () => {
  for (const server of servers) await server.close();
  rmSync(home, { recursive: true });
});

interface Result {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** One process runs all command lines, one after the other: starting Node for each would be most of the time. */
let child: ReturnType<typeof spawn>;
let answers: AsyncIterableIterator<string>;

before(() => {
  child = spawn(process.execPath, [runner], { stdio: ['pipe', 'pipe', 'inherit'] });
  answers = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
});
after(() => void child.kill());

async function weir(context: string, ...args: string[]): Promise<Result> {
  const env = { XDG_CONFIG_HOME: home, WEIR_CONTEXT: context, WEIR_SOCKET: '' };
  child.stdin!.write(`${JSON.stringify({ env, args })}\n`);
  return JSON.parse((await answers.next()).value);
}

test('the executable itself runs a command and ends with its exit code', async () => {
  const one = spawn(process.execPath, [main, 'status', '--socket', '/nowhere'], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let err = '';
  one.stderr.on('data', (part) => (err += part));
  const code = await new Promise((resolve) => one.on('close', resolve));
  assert.equal(code, 4);
  assert.match(err, /^weir: AGENT_UNREACHABLE: no answer from \/nowhere: there is no such socket\. .+\n$/);
});

test('endpoint list shows the pods of all nodes, or of one', async () => {
  const all = await weir('two', 'endpoint', 'list');
  assert.equal(all.code, 0);
  assert.equal(all.out.trim().split('\n').length, 5);
  assert.match(all.out, /^n2 +2 +shop +web-2 +10\.0\.0\.2 +- +300 +ready$/m);
  const one = await weir('two', 'endpoint', 'list', '--node', 'n2', '-o', 'json');
  assert.deepEqual(
    (JSON.parse(one.out) as { node: string }[]).map((row) => row.node),
    ['n2', 'n2'],
  );
  assert.equal((await weir('two', 'endpoint', 'list', '-n', 'other')).out, '');
});

test('endpoint get shows each verdict with its origin, and 3 for a pod that is not there', async () => {
  const found = await weir('two', 'endpoint', 'get', 'shop/web-1');
  assert.equal(found.code, 0);
  assert.match(found.out, /ingress +\(anyone else\) +any +deny +isolated by shop\/deny/);
  const missing = await weir('two', 'endpoint', 'get', 'shop/nobody');
  assert.equal(missing.code, 3);
  assert.match(missing.err, /^weir: NOT_FOUND: no pod shop\/nobody on n1, n2\. .+\n$/);
});

test('a node that does not answer is one line and code 4, and the others are shown', async () => {
  const result = await weir('broken', 'endpoint', 'list');
  assert.equal(result.code, 4);
  assert.match(result.err, /^weir: AGENT_UNREACHABLE: no answer from gone \(.*gone\.sock\): .+\n$/);
  assert.match(result.out, /web-2/);
  assert.equal((await weir('broken', 'endpoint', 'get', 'shop/nobody')).code, 4);
});

test('identity list merges nodes; identity get lists who has it', async () => {
  assert.equal(
    (await weir('two', 'identity', 'list')).out,
    'IDENTITY  NAMESPACE  LABELS\n     300  shop       app=web\n',
  );
  const got = parse((await weir('two', 'identity', 'get', '300', '-o', 'yaml')).out);
  assert.deepEqual([got.pods, got.addresses], [['shop/web-1'], ['10.0.0.1']]);
  assert.equal((await weir('two', 'identity', 'get', '301')).code, 3);
  assert.equal((await weir('two', 'identity', 'get', 'x')).code, 2);
});

test('policy list says which policy cannot be understood and why', async () => {
  const { out } = await weir('two', 'policy', 'list');
  assert.match(out, /^NetworkPolicy +shop +broken +2 +ingress +4 +invalid: allows nothing$/m);
  assert.match(out, /isolates the pods it selects and allows nothing:\n {2}spec\.ingress\[0\].*\n {2}spec\.x is/);
});

test('node list shows agents that do not answer', async () => {
  const { out, code } = await weir('broken', 'node', 'list');
  assert.equal(code, 4);
  assert.match(out, /^n1 +healthy +2 +10\.9\.0\.1/m);
  assert.match(out, /^gone +unreachable/m);
});

test('ip get answers by the longest prefix', async () => {
  const get = async (address: string) =>
    JSON.parse((await weir('one', 'ip', 'get', address, '-o', 'json')).out)[0] as {
      address: string;
      behind: unknown[];
    };
  assert.equal((await get('10.0.0.1')).address, '10.0.0.1');
  assert.deepEqual((await get('10.0.0.77')).behind, [{ address: '0.0.0.0/0', identity: 9 }]);
  assert.equal((await get('8.8.8.8')).address, '0.0.0.0/0');
  assert.equal((await weir('one', 'ip', 'get', 'fd00::1')).code, 3);
  const bad = await weir('one', 'ip', 'get', '10.0.0');
  assert.deepEqual([bad.code, bad.err.split('\n').length], [2, 2]);
});

test('ip list says which nodes see an address so', async () => {
  const rows = JSON.parse((await weir('two', 'ip', 'list', '--pod', '-o', 'json')).out);
  assert.deepEqual([rows.length, rows[0].seenBy], [1, ['n1', 'n2']]);
});

test('ct list passes filters on and shows names, ends and idle times', async () => {
  const { out } = await weir('one', 'ct', 'list', '--protocol', 'udp');
  assert.match(out, /^n1 +UDP +10\.0\.0\.1:4000 +\[fd00::2\]:80 +open +forwarded +3\/2 +1\.3s$/m);
  for (const bad of [
    ['--port', '99999'],
    ['--ip', '10.0.0.0/8'],
    ['--state', 'sideways'],
    ['--protocol', 'quic'],
    ['--limit', '0'],
  ])
    assert.equal((await weir('one', 'ct', 'list', ...bad)).code, 2, bad.join(' '));
});

test('drops sums nodes and says what each reason means and what to do', async () => {
  const { out } = await weir('two', 'drops');
  assert.match(out, /^POLICY_DENIED +10 +1000 B +n1 5, n2 5\n {2}means: no rule\n {2}to do: add a rule$/m);
});

test('status begins with the problems and ends with 1 when a node is unhealthy', async () => {
  const { out, code } = await weir('two', 'status');
  assert.equal(code, 1);
  assert.match(out, /^n1: healthy .*\nn2: UNHEALTHY .*\n {2}! not following pods: gone\n/);
  assert.match(out, /routes update 10\.1\.0\.0\/24: fails, 3 tries: no route/);
  assert.match(out, /ipcache +64 +128 +50 %/);
  assert.match(out, /Leak: +10\.0\.0\.9/);
  const brief = await weir('one', 'status', '--brief');
  assert.deepEqual([brief.code, brief.out], [0, 'n1: healthy (2 pods, up 1m01s, agent 9.9.9)\n']);
  assert.equal((await weir('broken', 'status', '--brief')).code, 4);
});

test('version shows the client and the agents', async () => {
  const versions = JSON.parse((await weir('two', 'version', '-o', 'json')).out);
  assert.equal(versions.agents[1].version, '9.9.9');
  assert.equal((await weir('broken', 'version', '--client')).code, 0);
});

test('mistakes on the command line are 2, unknown contexts and nodes 3', async () => {
  assert.equal((await weir('two', 'nonsense')).code, 2);
  assert.equal((await weir('two', 'status', '--nonsense')).code, 2);
  assert.equal((await weir('two', 'endpoint')).code, 2);
  assert.equal((await weir('two', 'status', '--node', 'n9')).code, 3);
  assert.equal((await weir('nowhere', 'status')).code, 3);
  assert.equal((await weir('two', 'status', '--socket', '/nowhere')).code, 4);
  assert.equal((await weir('two', 'status', '--help')).code, 0);
});

test('flags that would change nothing are refused', async () => {
  for (const [said, ...args] of [
    [/--events/, 'ps', '-f'],
    [/--events/, 'ps', '--since', '5m'],
    [/--events/, 'ps', '--events', '--talking'],
    [/--token-file goes with --server/, 'observe', '--token-file', '/tmp/token'],
    [/--tls goes with --server/, 'top', '--tls'],
    [/tcp, udp, sctp/, 'why', 'a/b', 'c/d', '--protocol', 'tpc'],
  ] as const) {
    const { code, err } = await weir('two', ...args);
    assert.ok(code !== 0, args.join(' '));
    assert.match(err, said);
  }
});

test('an error does not hand on what steers a terminal', async () => {
  const { code, err } = await weir('two', 'status', '--node', '\u001b[2J');
  assert.equal(code, 3);
  assert.ok(!err.includes('\u001b'), JSON.stringify(err));
});
