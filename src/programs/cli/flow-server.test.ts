import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { flowServerTarget } from './flow-server.ts';

const folder = mkdtempSync(join(tmpdir(), 'weir-flow-server-'));
after(() => rmSync(folder, { recursive: true }));
const file = (name: string, content: string) => {
  writeFileSync(join(folder, name), content);
  return join(folder, name);
};
const empty = file('empty.crt', 'no certificate\n');

for (const [mistake, flags, reason] of [
  ['no address', { server: 'relay:port' }, /^--server: /],
  ['a certificate without its key', { server: 'relay', tlsClientCertFile: empty }, /belong together/],
  ['a file that is not there', { server: 'relay', tlsCaCertFiles: [join(folder, 'none')] }, /cannot be read: ENOENT/],
  ['a file without certificates', { server: 'relay', tlsCaCertFiles: [empty] }, /empty\.crt has no certificate in PEM/],
  [
    'a key that is none',
    { server: 'relay', tlsClientCertFile: empty, tlsClientKeyFile: empty },
    /^the certificates cannot be used: /,
  ],
] as const)
  test(`flowServerTarget() says what is wrong with the flags: ${mistake}`, () => {
    assert.throws(
      () => flowServerTarget(flags as never),
      (error: Error & { code?: string }) => error.code === 'CONFIG_INVALID' && reason.test(error.message),
    );
  });

test('flowServerTarget() speaks TLS where a flag is about it, and never over a unix socket', () => {
  const tls = (flags: object) => flowServerTarget(flags as never).rpc.tls;
  assert.equal(tls({ server: '[fd00::1]:4245' }), undefined);
  assert.equal(flowServerTarget({ server: '[fd00::1]' }).rpc.address, '[fd00::1]:4245');
  assert.equal(tls({ server: 'tls://relay.example' })?.serverName, 'relay.example');
  // An address has no name to ask for: the relay's own is, and the certificate is held against the address.
  assert.equal(tls({ server: 'tls://10.0.0.1' })?.serverName, 'relay.flows.weir.dev');
  assert.notEqual(tls({ server: 'tls://10.0.0.1' })?.trust?.checkServerIdentity, undefined);
  assert.equal(tls({ server: 'tls://10.0.0.1', tlsServerName: 'other' })?.serverName, 'other');
  assert.equal(tls({ server: 'unix:/run/hubble.sock', tls: true }), undefined);
  const token = file('token', ' secret \n');
  assert.equal(flowServerTarget({ server: 'relay', tokenFile: token } as never).rpc.authorization?.(), 'Bearer secret');
});
