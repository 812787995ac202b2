// Nothing is lost unseen: while two nodes are flooded faster than they can tell, through agents that were stopped for a
// moment, clients that read slowly or never and exporters whose receiver hangs, what each was given and what it was told is
// missing make up what there was. To the last event, and in bounded memory.
import assert from 'node:assert/strict';
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ensureLoad } from '../../bench/load/build.ts';
import { attempt, type LabStatus, podExec, startAgent, stopAgent, waitForAgent } from '../../lab/lab.ts';
import { type FlowFollower, type FlowLedger, followFlows, openLedger } from './flow-ledger.ts';
import { createScene, type Scene } from './scene.ts';
import { labName, nodeNames, type SharedLab, sharedLab, waitFor } from './shared-lab.ts';
import { serveSteady } from './steady.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const root = fileURLToPath(new URL('../..', import.meta.url));
const [near, far] = nodeNames.bare;
const nodes = [near, far] as const;
const [openPort, closedPort, receiverPort] = [81, 82, 8088];

/** Small, so that little traffic is too much: the kernel's ring holds 5 600 events, the agent's memory 4 096 flows. */
const tight = ['--map-entries=events=1048576', '--flows=4096'];
/** More than that ring holds, as each connection is two events on each node. */
const connectionsWhileStopped = 4_000;
const connectionsWhileAwake = 1_500;
const rounds = 2;
const datagramsOfRound = 1_000;
/** Clients that never read, at the agent and at the relay. */
const stuckClients = 6;
/** What a process may grow by. A server that goes on writing to clients that do not read grows by 600 in this flood. */
const growthMiB = 200;

const exporters = `exporters:
  - {name: all, type: file, path: /var/lib/weir/flood-all.jsonl, fields: [uuid], batch: {seconds: 0}}
  - {name: some, type: file, path: /var/lib/weir/flood-some.jsonl, fields: [uuid], batch: {seconds: 0}, exclude: [{verdict: [DROPPED]}]}
  - {name: held, type: splunk, url: 'http://127.0.0.1:${receiverPort}', format: flow, gzip: false, fields: [uuid], batch: {events: 50, kilobytes: 16, seconds: 0}, queue: {megabytes: 0.125}, timeoutSeconds: 300}
`;

interface ExporterStatus {
  name: string;
  offered: number;
  filtered: number;
  aggregated: number;
  sent: number;
  refused: number;
  told: number;
  lost: number;
  queue: { events: number; bytes: number; maxBytes: number };
}
interface Line {
  flow?: { uuid: string };
  lost_events?: { source: Parameters<FlowLedger['loss']>[0]; num_events_lost: string };
}

/** What a node says that it has counted. */
interface Counts {
  /** Of the datapath. */
  readonly events: number;
  readonly events_lost: number;
  readonly dns_lost: number;
  readonly drops_unreported: number;
  /** Of the agent. */
  readonly seenEvents: number;
  readonly malformedEvents: number;
  readonly seenFlows: number;
  readonly lostInKernel: number;
  readonly heldBack: number;
  readonly overtaken: number;
  readonly backlogBytes: number;
}

/** Numbers by the text of their series. */
type Metrics = ReadonlyMap<string, number>;

describe('a flood', { skip }, () => {
  let lab: SharedLab;
  let scene: Scene;
  let status: LabStatus;
  let receiver: ChildProcessWithoutNullStreams;
  let received = '';
  const servers: { close(): void }[] = [];
  const followers: FlowFollower[] = [];
  const base = new Map<string, Counts>();
  const end = new Map<string, Counts>();
  const metricsBefore = new Map<string, Metrics>();
  const metricsAfter = new Map<string, Metrics>();
  const residentBefore = new Map<string, number>();
  const residentAfter = new Map<string, number>();
  let connections = 0;
  let datagrams = 0;
  let denied = 0;

  const nodeOf = (name: string) => status.nodes.find((each) => each.name === name)!;
  const stateFile = (name: string) => join(nodeOf(near).folders.state, name);

  const isOfRelay = ({ name }: FlowFollower) => name.endsWith('relay');
  /** The nodes of the flood that a client follows. */
  const nodesOf = (follower: FlowFollower): readonly string[] => (isOfRelay(follower) ? nodes : [near]);

  function removeFiles(): void {
    for (const name of ['flood.yaml', 'flood-all.jsonl', 'flood-some.jsonl', 'export'])
      rmSync(stateFile(name), { recursive: true, force: true });
  }

  async function restart(node: string, options: readonly string[] = []): Promise<void> {
    await stopAgent(labName, node, 'ask');
    await startAgent(labName, node, options);
    await waitForAgent(labName, node);
    await waitFor(
      `the agent of ${node} to be in step, and to serve flows`,
      async () =>
        existsSync(nodeOf(node).sockets.hubble) && (await lab.agent<{ synced: boolean }>(node, '/v1/sync')).synced,
      30_000,
    );
  }

  async function startReceiver(): Promise<void> {
    const program = fileURLToPath(new URL('held-receiver.ts', import.meta.url));
    const command = [`--net=${nodeOf(near).netns}`, '--', process.execPath, program, String(receiverPort)];
    receiver = spawn('nsenter', command, { stdio: 'pipe' });
    receiver.stdout.on('data', (part) => (received += part));
    await waitFor('the receiver', async () => received.startsWith('listening'), 10_000);
    received = '';
  }

  /** What is counted while nothing is on its way: counters stood still around the look, and no event waited. */
  function counts(node: string): Promise<Counts> {
    const counters = async () => (await lab.agent<{ counters: Counts }>(node, '/v1/status')).counters;
    return waitFor(
      `${node} to be quiet`,
      async () => {
        const first = await counters();
        const flows = await lab.agent<Counts>(node, '/v1/flow-status');
        const second = await counters();
        return flows.backlogBytes === 0 && first.events === second.events && first.events_lost === second.events_lost
          ? { ...flows, ...second }
          : undefined;
      },
      20_000,
      100,
    );
  }
  const since = (node: string, what: keyof Counts) => end.get(node)![what] - base.get(node)![what];

  async function metrics(netns: string, port: number): Promise<Metrics> {
    const done = await attempt(['nsenter', `--net=${netns}`, '--', 'curl', '-sf', `http://127.0.0.1:${port}/metrics`]);
    assert.equal(done.status, 0, done.stderr);
    return new Map(
      done.stdout.split('\n').flatMap((line) => {
        const [, series, value] = /^([^#\s]+(?:\{[^}]*\})?) ([\d.e+]+)/.exec(line) ?? [];
        return series === undefined ? [] : [[series, Number(value)] as const];
      }),
    );
  }
  async function allMetrics(into: Map<string, Metrics>): Promise<void> {
    for (const node of nodes) into.set(node, await metrics(nodeOf(node).netns, 9965));
    into.set('relay', await metrics(status.controlPlane.netns, 9967));
  }
  const metricSince = (who: string, series: string) => {
    const after = metricsAfter.get(who)!.get(series);
    assert.notEqual(after, undefined, `${who} has no ${series}`);
    return after! - (metricsBefore.get(who)!.get(series) ?? 0);
  };

  /** The most memory that a process has had, in MiB; `anew`: from now on. */
  function resident(pid: number, anew = false): number {
    if (anew) writeFileSync(`/proc/${pid}/clear_refs`, '5');
    return Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024;
  }
  const watched = () => [
    ...nodes.map((node) => ({ who: node, pid: nodeOf(node).agentPid! })),
    { who: 'relay', pid: status.relay.pid! },
  ];

  /** Connections from one node to the other, each closed at once. */
  async function connect(from: string, to: string, count: number): Promise<void> {
    for (let made = 0; made < count; )
      for (const address of scene.pod(to).addresses) {
        const command = [ensureLoad(root), 'crr', address, String(openPort), '4', '0.5'];
        const done = await podExec(lab.record, scene.pod(from), command);
        const { count, errors } = JSON.parse(done.stdout) as { count: number; errors: number };
        assert.equal(errors, 0, 'traffic does not notice');
        made += count;
        connections += count;
      }
  }

  /** Datagrams, each from a socket of its own. */
  async function send(from: string, to: string, port: number, count: number): Promise<number> {
    const script = 'n=0; for ((i = 0; i < $3; i++)); do echo x > /dev/udp/$1/$2 && n=$((n + 1)); done; echo $n';
    const command = ['bash', '-c', script, 'send', scene.pod(to).ipv4, String(port), String(count)];
    const done = await podExec(lab.record, scene.pod(from), command);
    assert.equal(done.status, 0, done.stderr);
    return Number(done.stdout);
  }

  async function whileStopped(work: () => Promise<void>): Promise<void> {
    const pids = nodes.map((node) => nodeOf(node).agentPid!);
    try {
      for (const pid of pids) process.kill(pid, 'SIGSTOP');
      await work();
    } finally {
      for (const pid of pids) process.kill(pid, 'SIGCONT');
    }
  }

  /** Waits until a client has come to the flow that is the last now. */
  async function caughtUp(follower: FlowFollower): Promise<void> {
    for (const [node, ledger] of follower.ledgers) {
      const { seenFlows } = await lab.agent<Counts>(node, '/v1/flow-status');
      await waitFor(
        `${follower.name} to come to flow ${seenFlows} of ${node}`,
        async () => {
          follower.check();
          return ledger.next >= seenFlows;
        },
        20_000,
        20,
      );
    }
  }

  async function flood(sip: () => void): Promise<void> {
    for (let round = 0; round < rounds; round++) {
      await connect('client', 'server', connectionsWhileAwake);
      sip();
      datagrams += await send('client', 'server', openPort, datagramsOfRound);
      // While agents are awake: what is denied is told by flows or as held back, and the ring has room.
      for (const node of nodes) await counts(node);
      denied += await send('stranger', 'closed', closedPort, datagramsOfRound);
      for (const node of nodes) await counts(node);
      // Who keeps up gets all of these: what comes now is too much for everybody.
      await caughtUp(followers[0]!);
      sip();
      await whileStopped(() => connect('client', 'server', connectionsWhileStopped));
      for (const node of nodes) await counts(node);
      sip();
    }
  }

  async function allCaughtUp(): Promise<void> {
    for (const follower of followers) follower.drink();
    for (const follower of followers) await caughtUp(follower);
  }

  before(async () => {
    lab = await sharedLab();
    status = await lab.status();
    scene = await createScene(lab, 'flood');
    await scene.add({ node: near, name: 'client', labels: { app: 'client' } });
    await scene.add({ node: far, name: 'server', labels: { app: 'server' } });
    await scene.add({ node: near, name: 'closed', labels: { app: 'closed' } });
    await scene.add({ node: far, name: 'stranger', labels: { app: 'stranger' } });
    await scene.policy('server', {
      podSelector: { matchLabels: { app: 'server' } },
      policyTypes: ['Ingress'],
      ingress: [{ ports: [{ port: openPort }, { port: openPort, protocol: 'UDP' }] }],
    });
    await scene.policy('closed', { podSelector: { matchLabels: { app: 'closed' } }, policyTypes: ['Ingress'] });
    servers.push(await serveSteady(lab.record, scene.pod('server'), openPort));
    removeFiles();
    writeFileSync(stateFile('flood.yaml'), exporters);
    await startReceiver();
    await Promise.all([restart(near, [...tight, '--export-config=/var/lib/weir/flood.yaml']), restart(far, tight)]);
    status = await lab.status();

    const { hubble } = nodeOf(near).sockets;
    followers.push(await followFlows('a client of the agent', hubble));
    followers.push(await followFlows('a slow client of the relay', status.relay.socket));
    for (let i = 0; i < stuckClients; i++) {
      followers.push(await followFlows('a stuck client of the agent', hubble));
      followers.push(await followFlows('a stuck client of the relay', status.relay.socket));
    }
    await waitFor(
      'all clients to have begun',
      async () => {
        await send('client', 'server', openPort, 1);
        return followers.every((each) => nodesOf(each).every((node) => each.ledgers.has(node)));
      },
      20_000,
    );
    for (const node of nodes) base.set(node, await counts(node));
    await allCaughtUp();
    await allMetrics(metricsBefore);
    for (const { who, pid } of watched()) residentBefore.set(who, resident(pid, true));
    const [, slow, ...stuck] = followers;
    for (const each of [slow!, ...stuck]) each.hold();

    await flood(() => slow!.sip());
    for (const { who, pid } of watched()) residentAfter.set(who, resident(pid));
    receiver.stdin.write('\n');
    for (const node of nodes) end.set(node, await counts(node));
    await allCaughtUp();
    await waitFor(
      'exporters to be done',
      async () => {
        const { exporters } = await lab.agent<{ exporters: ExporterStatus[] }>(near, '/v1/status');
        return exporters.length === 3 && exporters.every((each) => each.queue.events === 0);
      },
      20_000,
      100,
    );
    await allMetrics(metricsAfter);
  });
  after(async () => {
    for (const each of followers) each.close();
    for (const each of servers) each.close();
    receiver?.stdin.end();
    await Promise.all(nodes.map((node) => restart(node)));
    removeFiles();
    await scene?.close();
  });

  for (const node of nodes)
    test(`what the datapath of ${node} reported its agent took, and what found no room is counted`, () => {
      assert.ok(since(node, 'events_lost') > 0, 'the ring was full');
      assert.equal(since(node, 'seenEvents'), since(node, 'events'));
      assert.equal(end.get(node)!.malformedEvents, 0);
      assert.equal(since(node, 'lostInKernel'), since(node, 'events_lost') + since(node, 'dns_lost'));
      assert.equal(since(node, 'heldBack'), since(node, 'drops_unreported'));
      const produced = since(node, 'events') + since(node, 'events_lost');
      assert.ok(produced >= 2 * connections + datagrams, `${produced} events of ${connections} connections`);
    });

  test('what each client was given and what it was told to have lost is what was recorded', () => {
    for (const follower of followers) {
      follower.check();
      for (const node of nodesOf(follower)) {
        const ledger = follower.ledgers.get(node)!;
        const what = `${follower.name}, ${node}`;
        assert.ok(ledger.next >= end.get(node)!.seenFlows, what);
        assert.equal(ledger.given + ledger.lost('HUBBLE_RING_BUFFER'), ledger.next - ledger.first!, what);
        assert.ok(ledger.lost('HUBBLE_RING_BUFFER') > 0, `${what}: it was too slow`);
        assert.equal(ledger.lost('PERF_EVENT_RING_BUFFER'), since(node, 'lostInKernel'), what);
        assert.equal(ledger.lost('OBSERVER_EVENTS_QUEUE'), since(node, 'heldBack'), what);
      }
    }
  });

  test('what was denied is told by flows or as held back, to the last datagram', () => {
    const ledger = followers[0]!.ledgers.get(near)!;
    assert.equal(denied, rounds * datagramsOfRound);
    assert.equal(metricSince(near, 'weir_dropped_packets_total{reason="POLICY_DENIED"}'), denied);
    assert.ok(since(near, 'heldBack') > 0, 'there were too many to report each');
    // It kept up with these.
    assert.equal(ledger.denied + since(near, 'heldBack'), denied);
  });

  test('what came to an exporter was left out, sent or given up, and its receiver knows of all', async () => {
    const { exporters } = await lab.agent<{ exporters: ExporterStatus[] }>(near, '/v1/status');
    const of = (name: string) => exporters.find((each) => each.name === name)!;
    for (const { name, offered, filtered, aggregated, sent, refused, told, lost, queue } of exporters) {
      assert.equal(offered, filtered + aggregated + sent + refused + told + lost + queue.events, name);
      assert.ok(queue.bytes <= queue.maxBytes, name);
      for (const [result, count] of Object.entries({ filtered, aggregated, sent, refused, told, lost }))
        assert.equal(
          metricsAfter.get(near)!.get(`weir_export_events_total{exporter="${name}",result="${result}"}`),
          count,
          `${name}, ${result}`,
        );
    }
    const all = written('all', true);
    const some = written('some', false);
    for (const [name, { given, tellings, allLost }] of [
      ['all', all],
      ['some', some],
    ] as const) {
      assert.deepEqual([given + tellings, allLost, 0], [of(name).sent, of(name).told, of(name).lost], name);
      assert.ok(allLost > 0, `${name}: it was told of losses`);
    }
    assert.equal(of('some').filtered - of('all').filtered, all.given - some.given);
    assert.ok(of('some').filtered > of('all').filtered, 'it leaves something out');

    const held = book('held', false, received);
    assert.ok(of('held').lost > 0, 'its queue was full');
    assert.equal(held.lost('EXPORT_QUEUE'), of('held').lost);
    assert.equal(held.given + held.tellings, of('held').sent);
    // Both were offered the same; what tells of the queue itself is the exporter's own.
    const own = of('held').offered - of('all').offered;
    assert.equal(held.given + held.tellings + held.allLost - own, all.given + all.tellings + all.allLost);
  });

  test('metrics agree with what clients were told', () => {
    for (const node of nodes) {
      const lost = (source: string) => metricSince(node, `hubble_lost_events_total{source="${source}"}`);
      const told = followers
        .filter((each) => nodesOf(each).includes(node))
        .reduce((sum, { ledgers }) => sum + ledgers.get(node)!.lost('HUBBLE_RING_BUFFER'), 0);
      const exported = node === near ? written('all', true).lost('HUBBLE_RING_BUFFER') : 0;
      assert.equal(lost('hubble_ring_buffer'), told + exported);
      assert.equal(lost('perf_event_ring_buffer'), since(node, 'events_lost') + since(node, 'dns_lost'));
      assert.equal(lost('observer_events_queue'), since(node, 'drops_unreported'));
    }
    const ofRelay = followers.filter(isOfRelay).flatMap(({ ledgers }) => [...ledgers.values()]);
    assert.equal(
      metricSince('relay', 'weir_relay_lost_events_total'),
      ofRelay.reduce((sum, each) => sum + each.allLost, 0),
    );
  });

  test('memory does not follow what waits for clients that do not read', () => {
    for (const { who } of watched()) {
      const grown = residentAfter.get(who)! - residentBefore.get(who)!;
      assert.ok(grown < growthMiB, `${who} has grown by ${Math.round(grown)} MiB`);
    }
  });

  /** The book that lines of JSON make. */
  function book(name: string, gapless: boolean, text: string): FlowLedger {
    const ledger = openLedger(name, gapless);
    for (const line of text.split('\n').filter(Boolean)) {
      const { event } = JSON.parse(line) as { event?: Line };
      const { flow, lost_events: lost } = event ?? (JSON.parse(line) as Line);
      if (flow !== undefined) ledger.flow(flow.uuid, false);
      if (lost !== undefined) ledger.loss(lost.source, Number(lost.num_events_lost));
    }
    return ledger;
  }
  const written = (name: string, gapless: boolean) =>
    book(name, gapless, readFileSync(stateFile(`flood-${name}.jsonl`), 'utf8'));
});
