import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { stringify } from 'yaml';
import { WeirError } from '../core/errors.ts';
import { findAccess, inClusterAccess, loadKubeconfig } from './kubeconfig.ts';

function folder(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), 'weir-kubeconfig-'));
  t.after(() => rmSync(path, { recursive: true }));
  return path;
}

const base64 = (text: string) => Buffer.from(text).toString('base64');

function write(t: TestContext, user: object, cluster: object = {}, more: object = {}): string {
  const path = join(folder(t), 'config');
  const file = {
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': 'main',
    contexts: [
      { name: 'main', context: { cluster: 'c', user: 'u' } },
      { name: 'other', context: { cluster: 'd', user: 'u' } },
    ],
    clusters: [
      { name: 'c', cluster: { server: 'https://api:6443/', ...cluster } },
      { name: 'd', cluster: { server: 'http://127.0.0.1:8080' } },
    ],
    users: [{ name: 'u', user }],
    ...more,
  };
  writeFileSync(path, stringify(file));
  return path;
}

test('loadKubeconfig() takes the current context, or the one named', (t) => {
  const path = write(t, { token: 'secret' }, { 'certificate-authority-data': base64('CA'), 'tls-server-name': 'api' });
  const access = loadKubeconfig(path);
  assert.deepEqual([access.server, access.ca, access.serverName], ['https://api:6443', 'CA', 'api']);
  assert.equal(access.token?.(), 'secret');
  assert.equal(loadKubeconfig(path, 'other').server, 'http://127.0.0.1:8080');
});

test('loadKubeconfig() reads files beside the kubeconfig, and a token file anew every time', (t) => {
  const path = write(t, { 'client-certificate': 'cert.pem', 'client-key': 'keys/key.pem', tokenFile: 'token' });
  const beside = (name: string) => join(path, '..', name);
  mkdirSync(beside('keys'));
  writeFileSync(beside('cert.pem'), 'CERT');
  writeFileSync(beside('keys/key.pem'), 'KEY');
  writeFileSync(beside('token'), 'one\n');
  const access = loadKubeconfig(path);
  assert.deepEqual([access.cert, access.key, access.token?.()], ['CERT', 'KEY', 'one']);
  writeFileSync(beside('token'), 'two\n');
  assert.equal(access.token?.(), 'two');
});

test('loadKubeconfig() asks a credential plugin', (t) => {
  const plugin = join(folder(t), 'plugin');
  writeFileSync(plugin, '#!/bin/sh\necho "{\\"status\\":{\\"token\\":\\"$WHO-$1\\"}}"\n');
  chmodSync(plugin, 0o755);
  const exec = { apiVersion: 'v1', command: plugin, args: ['arg'], env: [{ name: 'WHO', value: 'me' }] };
  assert.equal(loadKubeconfig(write(t, { exec })).token?.(), 'me-arg');
});

test('loadKubeconfig() says which file cannot be used and why', (t) => {
  const invalid = (path: string, text: RegExp, context?: string) =>
    assert.throws(
      () => loadKubeconfig(path, context),
      (error: unknown) => {
        assert.ok(error instanceof WeirError && error.code === 'KUBECONFIG_INVALID', String(error));
        assert.match(error.message, text);
        assert.ok(error.message.includes(path));
        return true;
      },
    );
  invalid('/nowhere/config', /no such file/);
  invalid(write(t, {}), /no context "missing"/, 'missing');
  invalid(write(t, {}, {}, { clusters: [] }), /no cluster "c"/);
  invalid(write(t, {}, {}, { clusters: [{ name: 'c', cluster: {} }] }), /server/);
  invalid(write(t, { 'client-certificate': 'missing.pem' }), /missing\.pem/);
  const exec = { apiVersion: 'v1', command: '/nowhere/plugin' };
  invalid(write(t, { exec }), /credential plugin failed/);
  const path = join(folder(t), 'config');
  for (const text of ['a: b: c', '[', '"text"', '\t', '- 1']) {
    writeFileSync(path, text);
    invalid(path, /./);
  }
});

test('findAccess() prefers the file named; outside of a cluster there is no access of a pod', (t) => {
  assert.equal(inClusterAccess({}), undefined);
  assert.equal(findAccess(write(t, {})).server, 'https://api:6443');
});
