// How many flows a second a relay merges: 50 simulated agents in a process of their own, the real relay in another, and
// one client, all with certificates of both sides. Times of all agents alternate, so that no two flows in a row are of
// one of them. The client checks the order.
// usage: relay.ts [--json]
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { create, toBinary } from '@bufbuild/protobuf';
import { GetFlowsRequestSchema, Observer } from '../proto/gen/observer/observer_pb.js';
import { flowShape, readResponse, view } from '../src/observe/relay/response-view.ts';
import { connectRpc, type RpcConnection } from '../src/observe/rpc/rpc-connection.ts';
import { methodPath } from '../src/observe/rpc/rpc-service.ts';
import { readTlsFiles } from '../src/observe/rpc/tls-files.ts';
import { folderStore } from '../src/programs/certs/certificate-stores.ts';
import { issueCertificates } from '../src/programs/certs/issue-certificates.ts';
import { median, printReport } from './report.ts';

const { values } = parseArgs({ options: { json: { type: 'boolean', default: false } } });
const agents = 50;
const flowsOfAgent = 40_000;
const rounds = 5;
const root = fileURLToPath(new URL('..', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'weir-bench-relay-'));
const file = (name: string) => join(folder, name);

await issueCertificates(folderStore(folder), {
  nodes: [],
  clients: [{ name: 'bench' }],
  relayNames: [],
  cluster: 'default',
  days: 1,
  renewDays: 0,
});
const agentProcess = spawn(process.execPath, ['bench/relay-agents.ts', folder, String(agents), String(flowsOfAgent)], {
  cwd: root,
  stdio: ['ignore', 'pipe', 'inherit'],
});
const [port = ''] = await firstLine(agentProcess.stdout);
const relayProcess = spawn(
  process.execPath,
  [
    'src/programs/cli/main.ts',
    'relay',
    '--listen=127.0.0.1:0',
    '--access=off',
    `--peers=127.0.0.1:${port}`,
    `--tls-cert-file=${file('relay.crt')}`,
    `--tls-key-file=${file('relay.key')}`,
    `--tls-client-ca-file=${file('client-ca.crt')}`,
    `--agent-cert-file=${file('relay.crt')}`,
    `--agent-key-file=${file('relay.key')}`,
    `--agent-ca-file=${file('ca.crt')}`,
  ],
  { cwd: root, stdio: ['ignore', 'ignore', 'pipe'] },
);
const log = await firstLine(relayProcess.stderr, (line) => line.includes('flows are served'));
const { address } = JSON.parse(log[0]!) as { address: string };

try {
  const material = readTlsFiles({
    certFile: file('client-bench.crt'),
    keyFile: file('client-bench.key'),
    caFile: file('ca.crt'),
  });
  const client = await connectRpc({ address, tls: { material, serverName: 'localhost' } }, 1 << 20);
  await connected(client);
  const results: { perSecond: number; disorder: number; bytes: number }[] = [];
  const cpu: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const before = cpuSeconds(relayProcess.pid!);
    const result = await readAll(client);
    results.push(result);
    cpu.push((cpuSeconds(relayProcess.pid!) - before) / (agents * flowsOfAgent));
    if (!values.json)
      process.stderr.write(
        `${Math.round(result.perSecond)} flows/s, ${result.disorder} out of order, ${Math.round(result.bytes)} bytes each\n`,
      );
  }
  client.close();
  const perSecond = median(results.map((each) => each.perSecond));
  const memory = peakMib(relayProcess.pid!);
  const disorder = results.reduce((sum, each) => sum + each.disorder, 0);
  printReport(
    'relay',
    [
      {
        measure: `flows of ${agents} agents merged by time`,
        median: perSecond,
        unit: '/s',
        goal: 200_000,
        met: perSecond >= 200_000 ? 'yes' : 'no',
      },
      { measure: 'processor of the relay for a flow', median: median(cpu) * 1e6, unit: 'µs' },
      { measure: 'bytes of a flow on the wire', median: results[0]!.bytes, unit: 'B' },
      { measure: 'flows out of order', median: disorder, unit: '', goal: 0, met: disorder === 0 ? 'yes' : 'no' },
      {
        measure: 'memory of the relay, at most',
        median: memory,
        unit: 'MiB',
        goal: 500,
        met: memory < 500 ? 'yes' : 'no',
      },
    ],
    values.json,
  );
} finally {
  relayProcess.kill();
  agentProcess.kill();
  rmSync(folder, { recursive: true });
}

/** The first line of a stream that is wanted; the stream is read on, so that nobody waits for it. */
function firstLine(stream: NodeJS.ReadableStream, wanted = (_: string) => true): Promise<string[]> {
  return new Promise((resolve, reject) => {
    let text = '';
    stream.on('data', (part) => {
      text += part;
      const found = text.split('\n').slice(0, -1).find(wanted);
      if (found !== undefined) resolve([found]);
    });
    stream.on('end', () => reject(new Error(`it ended: ${text}`)));
  });
}

/** Waits until the relay has all agents. */
async function connected(client: RpcConnection): Promise<void> {
  for (let tries = 0; ; tries++) {
    const answer = await client.unary(methodPath(Observer.method.serverStatus), new Uint8Array(), 5_000);
    // num_connected_nodes: field 5, a message with its field 1.
    const at = answer.indexOf(0x2a);
    if (at >= 0 && answer[at + 2] === 8 && answer[at + 3] === agents) return;
    if (tries > 100) throw new Error('the relay does not reach all agents');
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

function readAll(client: RpcConnection): Promise<{ perSecond: number; disorder: number; bytes: number }> {
  const request = toBinary(GetFlowsRequestSchema, create(GetFlowsRequestSchema, { since: { seconds: 1n, nanos: 0 } }));
  return new Promise((resolve, reject) => {
    const started = performance.now();
    let flows = 0;
    let bytesOfAll = 0;
    let disorder = 0;
    let last = 0;
    client.stream(methodPath(Observer.method.getFlows), request, {
      messages(bytes, starts, ends) {
        for (let i = 0; i < starts.length; i++) {
          readResponse(bytes, starts[i]!, ends[i]!, flowShape);
          if (view.kind !== 1) continue;
          flows++;
          bytesOfAll += ends[i]! - starts[i]!;
          if (view.timeUs < last) disorder++;
          last = view.timeUs;
        }
      },
      end(error) {
        if (error !== undefined) return reject(error);
        if (flows !== agents * flowsOfAgent) return reject(new Error(`${flows} flows of ${agents * flowsOfAgent}`));
        resolve({ perSecond: (flows * 1000) / (performance.now() - started), disorder, bytes: bytesOfAll / flows });
        return undefined;
      },
    });
  });
}

function peakMib(pid: number): number {
  const line = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return Math.round(Number(line?.[1]) / 1024);
}

function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}
