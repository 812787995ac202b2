import assert from 'node:assert/strict';
import { test } from 'node:test';
import { macBytes } from '../../kernel/links.ts';
import { solicitedNodeGroup, takeoverFrames } from './neighbour-frames.ts';

const mac = macBytes('02:00:00:00:00:0a');
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

test('takeoverFrames() tells everybody by ARP, as a request and as a reply', () => {
  const [request, reply] = takeoverFrames('10.0.0.5', mac).map(hex);
  assert.equal(
    request,
    'ffffffffffff02000000000a0806' + '00010800060400010' + '2000000000a0a000005' + '0000000000000a000005',
  );
  assert.equal(
    reply,
    'ffffffffffff02000000000a0806' + '00010800060400020' + '2000000000a0a000005' + 'ffffffffffff0a000005',
  );
});

test('takeoverFrames() tells all nodes by an advertisement with a right checksum', () => {
  const [frame] = takeoverFrames('fd00::5', mac);
  assert.ok(frame !== undefined && frame.length === 86);
  assert.equal(hex(frame.slice(0, 14)), '33330000000102000000000a86dd');
  assert.equal(frame[14 + 7], 255, 'hop limit');
  assert.equal(frame[54], 136);
  assert.equal(frame[58], 0x20, 'overrides what was known, and answers nobody');
  // Pseudo header and message together come to all ones.
  const pseudo = [...frame.slice(22, 54), 0, 0, 0, 32, 0, 0, 0, 58, ...frame.slice(54)];
  let sum = 0;
  for (let i = 0; i < pseudo.length; i += 2) sum += (pseudo[i]! << 8) | pseudo[i + 1]!;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  assert.equal(sum, 0xffff);
});

test('solicitedNodeGroup() has the last three bytes of the address', () => {
  assert.equal(hex(solicitedNodeGroup('fd00::12:3456')), 'ff0200000000000000000001ff123456');
});
