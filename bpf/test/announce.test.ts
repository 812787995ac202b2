// The device program answers ARP and NDP for announced addresses, for as long as it was told to, and for no others.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { addressBytes } from '../../src/connect/datapath/address-keys.ts';
import { datapathMaps } from '../../src/kernel/datapath.gen.ts';
import { macBytes } from '../../src/kernel/links.ts';
import { typedMap } from '../../src/kernel/typed-map.ts';
import { type Bed, createBed } from '../../test/bed/bed.ts';
import { icmpPacket } from '../../test/bed/packet.ts';
import { fromWire } from './probe.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const asker = '02:00:00:00:00:aa';
const own = '02:00:00:00:00:0b';
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
const macHex = (mac: string) => mac.replaceAll(':', '');

describe('announced addresses', { skip }, () => {
  let bed: Bed;
  const announce = (address: string, lastsMs: number, ifindex = bed.nodes[0]!.deviceIfindex) =>
    typedMap(bed.nodes[0]!.datapath!.map('announced'), datapathMaps.announced).update(
      { addr: addressBytes(address), ifindex },
      { untilNs: process.hrtime.bigint() + BigInt(Math.round(lastsMs * 1e6)), mac: macBytes(own) },
    );
  const arp = (target: string, from = '192.0.2.1', operation = 1) =>
    Uint8Array.from([
      ...macBytes('ff:ff:ff:ff:ff:ff'),
      ...macBytes(asker),
      ...[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, operation],
      ...macBytes(asker),
      ...addressBytes(from).slice(12),
      ...[0, 0, 0, 0, 0, 0],
      ...addressBytes(target).slice(12),
    ]);
  const solicitation = (target: string, from = 'fd00::aa', ttl = 255) =>
    icmpPacket({
      from: { ipv4: '', ipv6: from },
      to: { ipv4: '', ipv6: 'ff02::1:ff00:5' },
      six: true,
      sourceMac: asker,
      ttl,
      type: 135,
      rest: Uint8Array.from([0, 0, 0, 0, ...addressBytes(target), 1, 1, ...macBytes(asker)]),
    });

  before(async () => {
    bed = await createBed({ pods: [{ name: 'a', node: 0 }] });
    announce('192.0.2.50', 60_000);
    announce('fd00::5', 60_000);
  });
  after(() => bed?.close());

  test('an ARP request is answered with the MAC that the agent gave', () => {
    const { outcome, data } = fromWire(bed, 0, arp('192.0.2.50'));
    assert.equal(outcome, 'sent on');
    assert.equal(
      hex(data.slice(0, 42)),
      `${macHex(asker)}${macHex(own)}0806` + `0001080006040002${macHex(own)}c0000232` + `${macHex(asker)}c0000201`,
    );
  });

  test('a neighbour solicitation is answered, one of the unspecified address to all nodes', () => {
    const answer = fromWire(bed, 0, solicitation('fd00::5'));
    assert.equal(answer.outcome, 'sent on');
    assert.equal(answer.data.length, 86);
    assert.equal(hex(answer.data.slice(0, 14)), `${macHex(asker)}${macHex(own)}86dd`);
    assert.equal(hex(answer.data.slice(22, 38)), hex(addressBytes('fd00::5')));
    assert.equal(answer.data[54], 136);
    assert.equal(answer.data[58], 0x60);
    const all = [...answer.data.slice(22, 54), 0, 0, 0, 32, 0, 0, 0, 58, ...answer.data.slice(54)];
    let sum = 0;
    for (let i = 0; i < all.length; i += 2) sum += (all[i]! << 8) | all[i + 1]!;
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
    assert.equal(sum, 0xffff, 'the checksum is right');
    const duplicate = fromWire(bed, 0, solicitation('fd00::5', '::'));
    assert.equal(duplicate.outcome, 'sent on');
    assert.equal(hex(duplicate.data.slice(0, 6)), '333300000001');
    assert.equal(hex(duplicate.data.slice(38, 54)), hex(addressBytes('ff02::1')));
    assert.equal(duplicate.data[58], 0x20);
  });

  test('what is not announced, on this device or any more, is left to the kernel', () => {
    announce('192.0.2.51', -1);
    announce('192.0.2.52', 60_000, bed.nodes[0]!.deviceIfindex + 1000);
    announce('fd00::6', -1);
    for (const packet of [arp('192.0.2.51'), arp('192.0.2.52'), arp('192.0.2.53'), arp('192.0.2.50', '192.0.2.1', 2)])
      assert.equal(fromWire(bed, 0, packet).outcome, 'left to the kernel');
    for (const packet of [solicitation('fd00::6'), solicitation('fd00::7'), solicitation('fd00::5', 'fd00::aa', 64)])
      assert.notEqual(fromWire(bed, 0, packet).outcome, 'sent on');
  });

  test('an announcement of somebody else, and cut-off messages, are not answered', () => {
    assert.equal(fromWire(bed, 0, arp('192.0.2.50', '192.0.2.50')).outcome, 'left to the kernel');
    for (const length of [20, 30, 41])
      assert.notEqual(fromWire(bed, 0, arp('192.0.2.50').slice(0, length)).outcome, 'sent on');
    for (const length of [54, 60, 70])
      assert.notEqual(fromWire(bed, 0, solicitation('fd00::5').slice(0, length)).outcome, 'sent on');
  });
});
