// Syslog against Debian's rsyslog: TCP, TLS and UDP, read back as rsyslog understood it.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { unpackPackages } from '../lab/packages.ts';
import { silentProgress } from '../lab/progress.ts';
import { createEventEncoder } from '../src/observe/export/encode-event.ts';
import { type ConfigOf, parseExportConfig } from '../src/observe/export/export-config.ts';
import { createSyslogSink } from '../src/observe/export/syslog-sink.ts';
import { until } from '../src/observe/export/testdata/receivers.ts';
import { addresses, createScene, makeEvent } from '../src/observe/flows/testdata/scene.ts';
import { makeTestCertificates } from '../src/observe/rpc/testdata/certificates.ts';

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  return port;
}

async function startRsyslog(t: TestContext) {
  let root: string;
  try {
    root = await unpackPackages(['rsyslog', 'rsyslog-gnutls'], silentProgress, { closure: true });
  } catch (error) {
    t.skip(`rsyslog cannot be had: ${(error as Error).message}`);
    return undefined;
  }
  const folder = mkdtempSync(join(tmpdir(), 'weir-rsyslog-'));
  const [tcp, tls] = [await freePort(), await freePort()];
  const { file } = await makeTestCertificates(folder);
  const modules = join(root, 'usr/lib/x86_64-linux-gnu/rsyslog');
  const out = join(folder, 'out.jsonl');
  writeFileSync(
    join(folder, 'rsyslog.conf'),
    `
global(workDirectory="${folder}" maxMessageSize="64k" defaultNetstreamDriverCAFile="${file('ca.crt')}"
  defaultNetstreamDriverCertFile="${file('server.crt')}" defaultNetstreamDriverKeyFile="${file('server.key')}")
module(load="imudp")
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="anon")
module(load="imptcp")
template(name="line" type="list") {
  property(name="pri") constant(value="\t") property(name="hostname") constant(value="\t") property(name="app-name")
  constant(value="\t") property(name="msgid") constant(value="\t") property(name="structured-data")
  constant(value="\t") property(name="timereported" dateFormat="rfc3339") constant(value="\t") property(name="msg") constant(value="\n")
}
input(type="imtcp" port="${tls}" address="127.0.0.1")
input(type="imptcp" port="${tcp}" address="127.0.0.1")
input(type="imudp" port="${tcp}" address="127.0.0.1")
action(type="omfile" file="${out}" template="line")
`,
  );
  const library = join(root, 'usr/lib/x86_64-linux-gnu');
  const child = spawn(
    join(root, 'usr/sbin/rsyslogd'),
    ['-n', '-f', join(folder, 'rsyslog.conf'), '-i', join(folder, 'pid'), '-M', modules],
    { env: { ...process.env, LD_LIBRARY_PATH: library }, stdio: ['ignore', 'pipe', 'pipe'] },
  );
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (part) => (said += part));
  t.after(async () => {
    child.kill('SIGTERM');
    if (child.exitCode === null) await once(child, 'close');
    rmSync(folder, { recursive: true, force: true });
  });
  const lines = () => (existsSync(out) ? readFileSync(out, 'utf8').split('\n').slice(0, -1) : []);
  return { tcp, tls, ca: file('ca.crt'), otherCa: file('other.crt'), lines, said: () => said };
}

test('rsyslog reads messages over TCP, TLS and UDP as they were meant', async (t) => {
  const rsyslog = await startRsyslog(t);
  if (rsyslog === undefined) return;
  const scene = createScene(8);
  scene.record(makeEvent({ from: addresses.web, to: addresses.far }));
  const targets = [
    `address: "tcp://127.0.0.1:${rsyslog.tcp}"`,
    `address: "tls://localhost:${rsyslog.tls}", tls: {ca: "${rsyslog.ca}"}`,
    `address: "udp://127.0.0.1:${rsyslog.tcp}"`,
  ];
  for (const [i, target] of targets.entries()) {
    const text = `exporters: [{name: s, type: syslog, ${target}}]`;
    const config = parseExportConfig(text, 'test', scene.context)[0] as ConfigOf<'syslog'>;
    const encode = createEventEncoder(config, scene.context);
    const batch = Array.from({ length: 100 }, (_, n) => ({
      seq: n,
      ...encode({ kind: 'flow', row: scene.ring.get(0) }),
    }));
    const sink = createSyslogSink(config);
    for (let tries = 0; ; tries++)
      try {
        await sink.send(batch, AbortSignal.timeout(5_000));
        break;
      } catch (error) {
        if (tries > 50) throw new Error(`${target}: ${(error as Error).message}; rsyslog says: ${rsyslog.said()}`);
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    await until(`all are there: ${target}; ${rsyslog.said()}`, () => rsyslog.lines().length === 100 * (i + 1));
    await sink.close();
  }
  const text = `exporters: [{name: s, type: syslog, address: "tls://localhost:${rsyslog.tls}", tls: {ca: "${rsyslog.otherCa}"}}]`;
  const sink = createSyslogSink(parseExportConfig(text, 'test', scene.context)[0] as ConfigOf<'syslog'>);
  await assert.rejects(sink.send([], AbortSignal.timeout(5_000)), /give its authority as tls\.ca/);
  await sink.close();
  for (const line of rsyslog.lines()) {
    const [priority, host, app, kind, data, time, message] = line.split('\t');
    assert.deepEqual([priority, host, app, kind], ['134', 'node1', 'weir', 'flow']);
    assert.match(data!, /^\[weir@32473 id="[^"]+" verdict="FORWARDED" src="10.244.0.1" spt="43210"/);
    assert.equal(time, '2026-01-01T00:00:05.000Z');
    assert.equal((JSON.parse(message!) as { flow: { verdict: string } }).flow.verdict, 'FORWARDED');
  }
});
