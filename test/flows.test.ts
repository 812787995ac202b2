// From real packets of real pods through the datapath to a client of the contract.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { create } from '@bufbuild/protobuf';
import { type Flow, TrafficDirection, Verdict } from '../proto/gen/flow/flow_pb.js';
import { GetFlowsRequestSchema, type GetFlowsResponse, Observer } from '../proto/gen/observer/observer_pb.js';
import type { AddressRow, EndpointRow, IdentityRow, NodeRow } from '../src/core/rows.ts';
import { createTable } from '../src/core/table.ts';
import { u32Codec } from '../src/kernel/codec.ts';
import { createFlowObserver } from '../src/observe/flows/flow-observer.ts';
import { serviceClient } from '../src/observe/rpc/testdata/grpc-client.ts';
import { readPolicies } from '../src/secure/policy/read-policies.ts';
import { type Bed, createBed } from './bed/bed.ts';

const skip =
  process.getuid?.() !== 0
    ? 'needs root for namespaces and BPF'
    : existsSync(fileURLToPath(new URL('../build/bpf/pod.bpf.o', import.meta.url)))
      ? false
      : 'build/bpf/pod.bpf.o is not built';

/** The flows of a node of the bed, as its agent would serve them. */
async function observeNode(bed: Bed, index: number) {
  const node = bed.nodes[index]!;
  const datapath = node.datapath!;
  const addresses = createTable<AddressRow>({ name: 'addresses', key: (row) => row.address });
  const identities = createTable<IdentityRow>({ name: 'identities', key: (row) => row.id });
  for (const [i, pod] of bed.pods.entries()) {
    identities.upsert({
      id: pod.identity,
      labels: Object.entries(pod.labels).map(([key, value]) => `k8s:${key}=${value}`),
    });
    for (const address of [pod.ipv4, pod.ipv6]) {
      const local = pod.node === index;
      addresses.upsert({
        address,
        identity: pod.identity,
        kind: 'pod',
        namespace: pod.namespace,
        pod: pod.name,
        namedPorts: [],
        ifindex: local ? pod.ifindex : 0,
        endpointId: local ? i + 1 : 0,
      });
    }
  }
  const folder = mkdtempSync(join(tmpdir(), 'weir-flows-'));
  const address = `unix:${join(folder, 'hubble.sock')}`;
  const counters = datapath.map('counters');
  const observer = createFlowObserver({
    nodeName: node.name,
    run: '0123456789abcdef',
    version: 'weir test',
    startedAtMs: Date.now(),
    capacity: 4096,
    events: datapath.ring,
    counter: (counter) =>
      (counters.lookupPerCpu(u32Codec.encode(counter)) ?? []).reduce(
        (sum, each) => sum + Number(u32Codec.decode(each.subarray(0, 4))),
        0,
      ),
    cookie: node.compiler!.cookie,
    addresses,
    identities,
    endpoints: createTable<EndpointRow>({ name: 'endpoints', key: (row) => row.id }),
    policies: createTable({ name: 'policies', key: (row: { key: string }) => row.key }) as never,
    nodes: createTable<NodeRow>({ name: 'nodes', key: (row) => row.name }),
    onError: (error) => assert.fail(String(error)),
    ready: Promise.resolve(),
  });
  const server = await observer.serve(address);
  const client = serviceClient(Observer, address);
  async function close(): Promise<void> {
    client.close();
    // First of all: its timer looks at the bed's maps.
    observer.close();
    await server.close();
    rmSync(folder, { recursive: true });
  }
  async function read(): Promise<Flow[]> {
    const flows: Flow[] = [];
    for await (const { responseTypes } of client.getFlows!(
      create(GetFlowsRequestSchema),
    ) as AsyncIterable<GetFlowsResponse>)
      if (responseTypes.case === 'flow') flows.push(responseTypes.value);
    return flows;
  }
  return {
    observer,
    close,
    /** Flows once `enough` says so. */
    async until(enough: (flows: Flow[]) => boolean): Promise<Flow[]> {
      const deadline = Date.now() + 5000;
      for (;;) {
        const flows = await read();
        if (enough(flows)) return flows;
        assert.ok(
          Date.now() < deadline,
          `not in time; there were ${flows.map((flow) => `${flow.source?.podName}->${flow.destination?.podName} ${flow.Summary}`).join(' | ')}`,
        );
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    },
  };
}

const serve =
  'import socketserver,sys,socket\nclass S(socketserver.TCPServer):\n address_family=socket.AF_INET6\n allow_reuse_address=True\nclass H(socketserver.BaseRequestHandler):\n def handle(self): self.request.recv(10); self.request.sendall(b"yes")\nS(("::",int(sys.argv[1])),H).serve_forever()';
const connect =
  'import socket,sys\ns=socket.create_connection((sys.argv[1],int(sys.argv[2])),1)\ns.sendall(b"x")\ns.recv(10)\ns.close()';

/** Runs Python in a pod; resolves with its exit code. */
function python(netns: string, script: string, ...args: string[]) {
  const child = spawn('ip', ['netns', 'exec', netns, 'python3', '-c', script, ...args], { stdio: 'ignore' });
  return { child, done: new Promise<number>((resolve) => child.on('exit', (code) => resolve(code ?? 1))) };
}

async function connectUntil(netns: string, address: string, ok: boolean): Promise<void> {
  const deadline = Date.now() + 5000;
  while (((await python(netns, connect, address, '8080').done) === 0) !== ok)
    assert.ok(Date.now() < deadline, `${address} ${ok ? 'does not answer' : 'answers'}`);
}

const isolate = {
  apiVersion: 'networking.k8s.io/v1',
  kind: 'NetworkPolicy',
  metadata: { name: 'closed', namespace: 'shop' },
  spec: { podSelector: { matchLabels: { app: 'db' } }, policyTypes: ['Ingress'] },
};
const admit = {
  ...isolate,
  metadata: { name: 'db-from-web', namespace: 'shop' },
  spec: {
    podSelector: { matchLabels: { app: 'db' } },
    policyTypes: ['Ingress'],
    ingress: [{ from: [{ podSelector: { matchLabels: { app: 'web' } } }], ports: [{ port: 8080 }] }],
  },
};

test('packets between pods become flows that name both ends and the rule, in both families', { skip }, async (t) => {
  const bed = await createBed({
    pods: [
      { name: 'web', namespace: 'shop', node: 0 },
      { name: 'db', namespace: 'shop', node: 0 },
      { name: 'far', namespace: 'shop', node: 1 },
    ],
  });
  const [web, db, far] = [bed.pod('web'), bed.pod('db'), bed.pod('far')];
  bed.setPolicies(readPolicies([isolate, admit]));
  const flows = await observeNode(bed, 0);
  t.after(async () => {
    await flows.close();
    bed.close();
  });
  const server = python(db.netns, serve, '8080');
  t.after(() => server.child.kill());
  await connectUntil(web.netns, db.ipv4, true);
  await connectUntil(web.netns, db.ipv6, true);
  assert.notEqual(await python(far.netns, connect, db.ipv4, '8080').done, 0);

  const seen = await flows.until(
    (all) =>
      all.some((flow) => flow.dropReasonDesc === 133) &&
      [web.ipv4, web.ipv6].every((address) =>
        all.some((flow) => flow.IP?.source === address && flow.Summary.includes('closed')),
      ),
  );
  for (const address of [db.ipv4, db.ipv6]) {
    const opened = seen.filter(
      (flow) => flow.IP?.destination === address && flow.Summary === 'TCP Flags: SYN' && flow.source?.podName === 'web',
    );
    const pairs = opened.slice(-2);
    assert.deepEqual(
      pairs.map((flow) => flow.trafficDirection),
      [TrafficDirection.EGRESS, TrafficDirection.INGRESS],
    );
    for (const flow of pairs) {
      assert.equal(flow.verdict, Verdict.FORWARDED);
      assert.deepEqual(flow.destination?.labels, ['k8s:app=db']);
      assert.deepEqual(
        flow.ingressAllowedBy.map((policy) => [policy.name, policy.labels.at(-1)]),
        [['db-from-web', 'weir:rule=ingress[0]']],
      );
      assert.equal(flow.l4?.protocol.case === 'TCP' && flow.l4.protocol.value.destinationPort, 8080);
      assert.ok(Math.abs(Number(flow.time!.seconds) - Date.now() / 1000) < 30);
    }
  }
  const denied = seen.find((flow) => flow.dropReasonDesc === 133)!;
  assert.equal(denied.source?.podName, 'far');
  assert.equal(denied.trafficDirection, TrafficDirection.INGRESS);
  assert.equal(denied.verdict, Verdict.DROPPED);
  assert.deepEqual(denied.ingressDeniedBy.map((policy) => policy.name).sort(), ['closed', 'db-from-web']);
  assert.deepEqual(
    seen
      .map((flow) => flow.time!)
      .every(
        (time, i, all) =>
          i === 0 ||
          time.seconds * 1_000_000_000n + BigInt(time.nanos) + 1_000_000n >=
            all[i - 1]!.seconds * 1_000_000_000n + BigInt(all[i - 1]!.nanos),
      ),
    true,
  );
});

test('drops over the rate of reports are counted exactly, and every flow that was reported is there', {
  skip,
}, async (t) => {
  const bed = await createBed({
    pods: [
      { name: 'web', namespace: 'shop', node: 0 },
      { name: 'db', namespace: 'shop', node: 0 },
    ],
    constants: { drop_reports_per_second: 5 },
  });
  const [web, db] = [bed.pod('web'), bed.pod('db')];
  bed.setPolicies(readPolicies([isolate]));
  const flows = await observeNode(bed, 0);
  t.after(async () => {
    await flows.close();
    bed.close();
  });
  const flood =
    'import socket,sys\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\nfor i in range(200): s.sendto(b"x",(sys.argv[1],9))';
  assert.equal(await python(web.netns, flood, db.ipv4).done, 0);
  let shown = 0;
  await flows.until((all) => {
    shown = all.filter((flow) => flow.verdict === Verdict.DROPPED && flow.l4?.protocol.case === 'UDP').length;
    return shown + flows.observer.status().heldBack === 200;
  });
  assert.ok(shown >= 5 && shown < 200);
});
