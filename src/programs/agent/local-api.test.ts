import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import * as net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { CniError, type CniRequest, cniCodes } from '../../connect/endpoints/cni-protocol.ts';
import { WeirError } from '../../core/errors.ts';
import { type LocalApi, serveLocalApi } from './local-api.ts';

const logged: string[] = [];
const log = { debug() {}, info() {}, warn() {}, error: (text: string) => void logged.push(text) };
let folder = '';
let path = '';
let api: LocalApi;
let cni: (request: CniRequest) => Promise<undefined> = async () => undefined;

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'weir-api-'));
  path = join(folder, 'agent.sock');
  api = await serveLocalApi({
    path,
    routes: {
      '/v1/health': () => ({ healthy: true, big: 5n }),
      '/v1/things/': (_, rest) => (rest === '' ? undefined : { rest }),
      '/v1/fails': () => Promise.reject(new Error('broken inside')),
      '/v1/picky': () => {
        throw new WeirError('CONFIG_INVALID', 'limit=x');
      },
    },
    cni: (request) => cni(request),
    log,
    requestTimeoutMs: 300,
  });
});
after(async () => {
  await api.close();
  rmSync(folder, { recursive: true });
});

/** Writes bytes and reads until the server closes, or `enough` is there. */
function raw(
  send: string | Buffer,
  options: { readonly end?: boolean; readonly enough?: RegExp } = {},
): Promise<string> {
  return new Promise((resolve) => {
    const socket = net.connect(path);
    let text = '';
    socket.on('data', (part) => {
      text += part;
      if (options.enough?.test(text)) socket.destroy();
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve(text));
    socket.write(send);
    if (options.end) socket.end();
  });
}

const get = (url: string) => raw(`GET ${url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
const statusOf = (answer: string) => Number(answer.split(' ')[1]);
const bodyOf = (answer: string) => JSON.parse(answer.slice(answer.indexOf('\r\n\r\n') + 4));

function postCni(body: string, headers: Record<string, string> = {}): Promise<string> {
  const lines = Object.entries({
    'X-CNI_COMMAND': 'ADD',
    'X-CNI_CONTAINERID': 'c',
    'X-CNI_IFNAME': 'eth0',
    'X-CNI_NETNS': '/n',
    ...headers,
  });
  const head = lines.map(([name, value]) => `${name}: ${value}\r\n`).join('');
  return raw(
    `POST /cni HTTP/1.1\r\nHost: x\r\nConnection: close\r\n${head}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
}

test('the socket is for root only', () => {
  assert.equal(statSync(path).mode & 0o777, 0o600);
});

test('GET answers JSON, 404 for what is not there, 405 for other methods', async () => {
  assert.deepEqual(bodyOf(await get('/v1/health')), { healthy: true, big: 5 });
  assert.deepEqual(bodyOf(await get('/v1/things/a%2Fb')), { rest: 'a/b' });
  for (const url of ['/', '/v1', '/v1/things/', '/constructor', '/__proto__', '/v1/health/x'])
    assert.equal(statusOf(await get(url)), 404, url);
  assert.equal(statusOf(await raw('PUT /v1/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')), 405);
});

test('what a client gets wrong is 400, what we get wrong 500 and logged', async () => {
  logged.length = 0;
  assert.equal(statusOf(await get('/v1/things/%zz')), 400);
  assert.equal(statusOf(await get('//')), 400);
  assert.deepEqual(bodyOf(await get('/v1/picky')), { error: 'limit=x' });
  assert.equal(logged.length, 0);
  assert.equal(statusOf(await get('/v1/fails')), 500);
  assert.deepEqual(logged, ['a request failed']);
});

test('rubbish, half requests and endless heads hurt nobody', async () => {
  const rubbish = Buffer.from(Array.from({ length: 4096 }, (_, i) => (i * 197 + 13) & 255));
  assert.match(await raw(rubbish, { end: true }), /^(HTTP\/1\.1 400|$)/);
  assert.match(await raw('\r\n\r\n\0\0\0', { end: true }), /^(HTTP\/1\.1 400|$)/);
  assert.match(await raw(`GET / HTTP/1.1\r\nHost: x\r\nX-Long: ${'a'.repeat(1 << 20)}\r\n\r\n`), /^(HTTP\/1\.1 431|$)/);
  await raw('POST /cni HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"half', { end: true });
  assert.equal(statusOf(await get('/v1/health')), 200);
});

test('10 MB to /cni is refused as too large, with code 6', async () => {
  const answer = await postCni(' '.repeat(10 << 20));
  // What is left unread of the request may cost the client the answer, or the end of it.
  if (/\}\s*$/.test(answer)) assert.equal(bodyOf(answer).code, cniCodes.decodeFailure);
  assert.equal(statusOf(await get('/v1/health')), 200);
});

test('a client that hangs is let go and holds up nobody', async () => {
  const hanging = Array.from({ length: 50 }, (_, i) =>
    raw(i % 2 ? 'GET /v1/health HTTP/1.1\r\nHost:' : 'POST /cni HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n'),
  );
  assert.equal(statusOf(await get('/v1/health')), 200);
  for (const answer of await Promise.all(hanging)) assert.match(answer, /^HTTP\/1\.1 (408|500)|^$/);
});

test('/cni speaks the runtime’s format for answers and refusals', async () => {
  const config = JSON.stringify({ cniVersion: '0.4.0', name: 'weir', type: 'weir-cni' });
  assert.equal(statusOf(await postCni(config)), 200);
  cni = async () => {
    throw new CniError(cniCodes.tryAgain, 'not yet', 'soon');
  };
  assert.deepEqual(bodyOf(await postCni(config)), { cniVersion: '0.4.0', code: 11, msg: 'not yet', details: 'soon' });
  cni = async () => {
    throw new Error('kernel said no');
  };
  assert.deepEqual(bodyOf(await postCni(config)).code, cniCodes.ioFailure);
  assert.equal(bodyOf(await postCni('{')).code, cniCodes.decodeFailure);
  assert.equal(bodyOf(await postCni(config, { 'X-CNI_COMMAND': 'DANCE' })).code, cniCodes.invalidEnvironment);
});

test('a request may take longer than a client may take to ask', async () => {
  let release = () => {};
  cni = () => new Promise((resolve) => (release = () => resolve(undefined)));
  const answer = postCni(JSON.stringify({ cniVersion: '1.1.0', name: 'weir', type: 'weir-cni' }));
  // Longer than the time for requests and its checks: only the asking is limited.
  setTimeout(() => release(), 700);
  assert.equal(statusOf(await answer), 200);
});
