// Simulated agents for relay.ts: flow servers on the real wire whose flows are copies of real ones with other times.
// usage: relay-agents.ts FOLDER-WITH-CERTIFICATES AGENTS FLOWS
import { join } from 'node:path';
import { create } from '@bufbuild/protobuf';
import {
  GetNamespacesResponseSchema,
  GetNodesResponseSchema,
  Observer,
  ServerStatusResponseSchema,
} from '../proto/gen/observer/observer_pb.js';
import { ChangeNotificationSchema, Peer } from '../proto/gen/peer/peer_pb.js';
import { createFlowEncoder } from '../src/observe/flows/encode-flow.ts';
import { flowServerName } from '../src/observe/flows/peer-service.ts';
import { addresses, createScene, makeEvent } from '../src/observe/flows/testdata/scene.ts';
import { frame } from '../src/observe/rpc/message-frames.ts';
import { FramedMessages, type RpcCall, rpcService } from '../src/observe/rpc/rpc-service.ts';
import { serveRpc } from '../src/observe/rpc/serve-rpc.ts';
import { watchTlsFiles } from '../src/observe/rpc/tls-files.ts';

const [folder = '', agentCount = '', flowCount = ''] = process.argv.slice(2);
const agents = Number(agentCount);
const flows = Number(flowCount);
const flowsOfBatch = 40;
/** Nanoseconds from here on take five bytes, as the seconds do: times can be written over one another. */
const leastNanos = 2 ** 28;
const stepsOfSecond = 700_000;
const baseSeconds = Date.UTC(2026, 0, 1) / 1000;

/** Real flows in their frames, and where the times of the responses are. */
function template() {
  const scene = createScene(64);
  scene.record(
    ...Array.from({ length: flowsOfBatch }, (_, i) =>
      makeEvent({
        from: i % 2 === 0 ? addresses.web : addresses.far,
        to: addresses.db,
        identity: [256, 257],
        cookie: [0, 7],
        sport: 20_000 + i,
        dport: 5432,
      }),
    ),
  );
  const encoder = createFlowEncoder(scene.context);
  const framed = scene
    .rows()
    .slice(0, flowsOfBatch)
    .map((row) => frame(encoder.response({ ...row, seconds: baseSeconds, nanos: leastNanos })));
  const ends: number[] = [];
  for (const each of framed) ends.push((ends.at(-1) ?? 0) + each.length);
  return { bytes: Buffer.concat(framed), ends };
}

const { bytes: template_, ends } = template();

/** The flows of one agent, in batches; its flow `j` is the flow `j * agents + own` of all. */
async function* flowsOf(own: number, signal: AbortSignal): AsyncGenerator<FramedMessages> {
  for (let j = 0; j < flows && !signal.aborted; j += ends.length) {
    const batch = Buffer.from(template_);
    for (let i = 0; i < ends.length; i++) {
      const k = (j + i) * agents + own;
      // The time is the last field of a response: tag and seconds, tag and nanoseconds.
      putVarint(batch, ends[i]! - 5, leastNanos + (k % stepsOfSecond) * 1000);
      putVarint(batch, ends[i]! - 11, baseSeconds + Math.floor(k / stepsOfSecond));
    }
    yield new FramedMessages(batch);
  }
}

function putVarint(to: Buffer, at: number, value: number): void {
  for (let i = 0, rest = value; i < 5; i++, rest = Math.floor(rest / 128))
    to[at + i] = (rest % 128) | (i < 4 ? 0x80 : 0);
}

const files = watchTlsFiles({
  certFile: join(folder, 'agents.crt'),
  keyFile: join(folder, 'agents.key'),
  caFile: join(folder, 'ca.crt'),
});
const servers: { name: string; address: string }[] = [];
for (let own = 0; own < agents; own++) {
  const observer = rpcService(Observer, {
    getFlows: { stream: (_: unknown, { signal }: RpcCall) => flowsOf(own, signal) },
    getAgentEvents: { stream: async function* () {} },
    getDebugEvents: { stream: async function* () {} },
    getNodes: { unary: () => create(GetNodesResponseSchema) },
    getNamespaces: { unary: () => create(GetNamespacesResponseSchema) },
    serverStatus: { unary: () => create(ServerStatusResponseSchema) },
  });
  const peers = rpcService(Peer, {
    notify: {
      async *stream(_: unknown, { signal }: RpcCall) {
        for (const { name, address } of servers)
          yield create(ChangeNotificationSchema, { name, address, type: 1, tls: { serverName: flowServerName(name) } });
        await new Promise((resolve) => signal.addEventListener('abort', resolve));
      },
    },
  });
  const server = await serveRpc({
    address: '127.0.0.1:0',
    services: [observer, peers],
    tls: { files, clients: 'required' },
  });
  servers.push({ name: `node${own}`, address: server.address });
}
process.stdout.write(`${servers[0]!.address.split(':')[1]}\n`);
