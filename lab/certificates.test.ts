import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { test } from 'node:test';
import { addressBytes, issue } from './certificates.ts';

test('issue() makes an authority that signs itself', () => {
  const ca = new X509Certificate(issue({ commonName: 'ca' }, undefined).certificatePem);
  assert.equal(ca.ca, true);
  assert.equal(ca.verify(ca.publicKey), true);
});

test('issue() makes a certificate that the authority vouches for', () => {
  const ca = issue({ commonName: 'ca' }, undefined);
  const made = issue({ commonName: 'weir-agent:node1', organizations: ['weir:agents'] }, ca);
  const certificate = new X509Certificate(made.certificatePem);
  const authority = new X509Certificate(ca.certificatePem);
  assert.equal(certificate.verify(authority.publicKey), true);
  assert.equal(certificate.checkIssued(authority), true);
  assert.equal(certificate.ca, false);
  assert.equal(certificate.subject, 'O=weir:agents\nCN=weir-agent:node1');
  assert.equal(certificate.checkPrivateKey(made.key), true);
});

test('issue() puts addresses and names where a client looks for them', () => {
  const ca = issue({ commonName: 'ca' }, undefined);
  const made = issue({ commonName: 'server' }, ca, ['10.77.0.1', 'fd77::1', 'kubernetes.default']);
  const certificate = new X509Certificate(made.certificatePem);
  assert.equal(certificate.checkIP('10.77.0.1'), '10.77.0.1');
  assert.equal(certificate.checkIP('fd77::1'), 'fd77::1');
  assert.equal(certificate.checkHost('kubernetes.default'), 'kubernetes.default');
  assert.equal(certificate.checkIP('10.77.0.2'), undefined);
});

test('issue() keeps the certificate valid for years from an hour ago', () => {
  const now = new Date('2026-03-01T12:00:00Z');
  const certificate = new X509Certificate(issue({ commonName: 'ca' }, undefined, [], now).certificatePem);
  assert.equal(new Date(certificate.validFrom).toISOString(), '2026-03-01T11:00:00.000Z');
  assert.ok(new Date(certificate.validTo) > new Date('2036-01-01'));
});

test('addressBytes() reads both families', () => {
  assert.deepEqual([...addressBytes('10.0.0.255')], [10, 0, 0, 255]);
  assert.equal(addressBytes('fd77::11').toString('hex'), 'fd770000000000000000000000000011');
  assert.equal(addressBytes('::1').toString('hex'), '00000000000000000000000000000001');
});
