// Elasticsearch's protocol against a real OpenSearch.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { type IncomingHttpHeaders, request } from 'node:http';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { createSink } from '../../src/observe/export/create-sink.ts';
import { parseExportConfig } from '../../src/observe/export/export-config.ts';
import { addresses, createScene } from '../../src/observe/flows/testdata/scene.ts';
import { writeCertificates } from './certificates.ts';
import { exportMended, exportOver } from './export-flows.ts';
import { startOpenSearch } from './java-receivers.ts';

async function idsIn(url: string, index: string): Promise<string[]> {
  await fetch(`${url}/_refresh`, { method: 'POST' });
  const answer = (await (await fetch(`${url}/${index}/_search?size=10000&_source=false`)).json()) as {
    hits: { hits: { _id: string }[] };
  };
  return answer.hits.hits.map((each) => each._id).sort();
}

const idsOf = (events: readonly { id: string }[]) => events.map((each) => each.id).sort();

/** Ends TLS in front of `url`, and lets only those in whom `admits` knows. */
async function startGateway(t: TestContext, url: string, admits: (headers: IncomingHttpHeaders) => boolean) {
  const folder = mkdtempSync(join(tmpdir(), 'weir-gateway-'));
  const files = await writeCertificates(folder);
  const tls = { cert: readFileSync(files.certificate), key: readFileSync(files.key) };
  const server = createServer(tls, (from, to) => {
    if (!admits(from.headers)) return void to.writeHead(401).end('{"error":"missing authentication credentials"}');
    const { method, headers } = from;
    const onward = request(new URL(from.url ?? '/', url), { method: method!, headers }, (answer) => {
      to.writeHead(answer.statusCode!, answer.headers);
      answer.pipe(to);
    });
    onward.on('error', () => to.destroy());
    from.pipe(onward);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
    rmSync(folder, { recursive: true, force: true });
  });
  return { url: `https://localhost:${(server.address() as AddressInfo).port}`, files, folder };
}

test('OpenSearch', async (t) => {
  const receiver = await startOpenSearch(t);
  if (receiver === undefined) return;

  await t.test('every flow is there once, although it was killed in between', async (t) => {
    const yaml = `{name: os, type: elasticsearch, url: "${receiver.url}", index: "weir-{date}", batch: {events: 100, seconds: 0}}`;
    const events = await exportOver(t, yaml, 3_000, receiver.restart);
    assert.deepEqual(await idsIn(receiver.url, 'weir-2026.01.01'), idsOf(events));
    const one = (await (await fetch(`${receiver.url}/weir-2026.01.01/_doc/${events[0]!.id}`)).json()) as {
      _source: { source: { ip: string }; event: { category: string[] } };
    };
    assert.equal(one._source.source.ip, addresses.web);
    assert.deepEqual(one._source.event.category, ['network']);
  });

  await t.test('one document of a batch is refused, and the others are taken', async () => {
    const mapping = { mappings: { properties: { n: { type: 'integer' } } } };
    await fetch(`${receiver.url}/strict`, {
      method: 'PUT',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(mapping),
    });
    const yaml = `exporters: [{name: os, type: elasticsearch, url: "${receiver.url}", index: strict}]`;
    const context = createScene(1).context;
    const sink = await createSink(parseExportConfig(yaml, 'test', context)[0]!, context, undefined, () => {});
    const event = (n: number, value: unknown) => ({
      ...{ seq: n, timeMs: 0, id: `i${n}`, key: '', kind: 'flow' },
      body: JSON.stringify({ n: value }),
    });
    const signal = AbortSignal.timeout(30_000);
    const result = await sink.send([event(1, 1), event(2, 'no number'), event(3, 3)], signal);
    assert.deepEqual([result.again, result.refused], [[], 1]);
    assert.match(result.why!, /^400 mapper_parsing_exception/);
    assert.deepEqual(await sink.send([event(1, 1)], signal), { again: [], refused: 0 }, 'what is there has arrived');
    await sink.close();
  });

  await t.test('over TLS with an API key: a wrong one is told, and costs no flow', async (t) => {
    const gateway = await startGateway(t, receiver.url, (headers) => headers.authorization === 'ApiKey a2V5');
    const tokenFile = join(gateway.folder, 'token');
    writeFileSync(tokenFile, 'guessed\n');
    const yaml = `{name: os, type: elasticsearch, url: "${gateway.url}", index: by-key, auth: {tokenFile: "${tokenFile}"}, tls: {ca: "${gateway.files.ca}"}}`;
    const events = await exportMended(t, yaml, /answers 401: .*missing authentication credentials/, () =>
      writeFileSync(tokenFile, 'a2V5\n'),
    );
    assert.deepEqual(await idsIn(receiver.url, 'by-key'), idsOf(events));
  });

  await t.test('over TLS with a password: an authority that has not signed is told, and costs no flow', async (t) => {
    const basic = `Basic ${Buffer.from('weir:correct=horse battery').toString('base64')}`;
    const gateway = await startGateway(t, receiver.url, (headers) => headers.authorization === basic);
    const [passwordFile, ca] = [join(gateway.folder, 'password'), join(gateway.folder, 'given-ca.pem')];
    writeFileSync(passwordFile, 'correct=horse battery\n');
    writeFileSync(ca, readFileSync(gateway.files.otherCa));
    const yaml = `{name: os, type: elasticsearch, url: "${gateway.url}", index: by-password, auth: {user: weir, passwordFile: "${passwordFile}"}, tls: {ca: "${ca}"}}`;
    const events = await exportMended(t, yaml, /give its authority as tls\.ca/, () =>
      writeFileSync(ca, readFileSync(gateway.files.ca)),
    );
    assert.deepEqual(await idsIn(receiver.url, 'by-password'), idsOf(events));
  });
});
