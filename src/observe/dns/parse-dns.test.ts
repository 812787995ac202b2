import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createDnsNames } from './dns-names.ts';
import { parseDns, parseDnsStream } from './parse-dns.ts';

const name = (text: string) =>
  Buffer.concat([
    ...text
      .split('.')
      .filter(Boolean)
      .map((label) => Buffer.concat([Buffer.from([label.length]), Buffer.from(label)])),
    Buffer.from([0]),
  ]);
const u16 = (...values: number[]) => Buffer.from(values.flatMap((each) => [each >> 8, each & 255]));

/** A message by RFC 1035, written down by hand. */
function message(given: { flags: number; query: string; type: number; answers?: Buffer[]; id?: number }): Buffer {
  const { flags, query, type, answers = [], id = 7 } = given;
  return Buffer.concat([u16(id, flags, 1, answers.length, 0, 0), name(query), u16(type, 1), ...answers]);
}
const record = (owner: Buffer, type: number, ttl: number, data: Buffer) =>
  Buffer.concat([owner, u16(type, 1, ttl >> 16, ttl & 0xffff, data.length), data]);
const pointer = Buffer.from([0xc0, 12]);

const answer = message({
  flags: 0x8180,
  query: 'WWW.Example.com',
  type: 28,
  answers: [
    record(pointer, 5, 300, name('edge.example.net')),
    record(name('edge.example.net'), 28, 60, Buffer.from('20010db8000000000000000000000001', 'hex')),
    record(pointer, 1, 90, Buffer.from([192, 0, 2, 1])),
  ],
});

test('a query and its answer', () => {
  const query = parseDns(message({ flags: 0x0100, query: 'WWW.Example.com', type: 28 }));
  assert.deepEqual(
    [query?.response, query?.query, query?.queryType, query?.id],
    [false, 'www.example.com.', 'AAAA', 7],
  );
  assert.deepEqual(parseDns(answer), {
    id: 7,
    response: true,
    rcode: 0,
    query: 'www.example.com.',
    queryType: 'AAAA',
    addresses: ['2001:db8::1', '192.0.2.1'],
    cnames: ['edge.example.net.'],
    recordTypes: ['CNAME', 'AAAA', 'A'],
    ttl: 60,
  });
  assert.equal(parseDns(message({ flags: 0x8183, query: 'no.such', type: 1 }))?.rcode, 3);
});

test('a message that was cut off tells what is there', () => {
  const cut = parseDns(answer.subarray(0, answer.length - 10));
  assert.deepEqual([cut?.query, cut?.addresses], ['www.example.com.', ['2001:db8::1']]);
});

test('pointers that lead forwards or in a circle, endless names and other kinds of messages are refused', () => {
  const loop = Buffer.concat([u16(1, 0, 1, 0, 0, 0), Buffer.from([0xc0, 12]), u16(1, 1)]);
  assert.equal(parseDns(loop), undefined);
  assert.equal(
    parseDns(Buffer.concat([u16(1, 0, 1, 0, 0, 0), name(`${'a'.repeat(60)}.`.repeat(5)), u16(1, 1)])),
    undefined,
  );
  assert.equal(parseDns(message({ flags: 5 << 11, query: 'x', type: 6 })), undefined);
  assert.equal(parseDns(new Uint8Array(11)), undefined);
});

test('bytes that are no text are written as zone files write them', () => {
  const odd = Buffer.concat([u16(1, 0, 1, 0, 0, 0), Buffer.from([4, 0x1b, 0x2e, 0xff, 0x41, 0]), u16(1, 1)]);
  assert.equal(parseDns(odd)?.query, '\\027\\.\\255a.');
});

test('a message on a stream is found behind its length, whole or cut off, or without it', () => {
  const segment = Buffer.concat([u16(answer.length), answer]);
  assert.deepEqual(parseDnsStream(segment), parseDns(answer));
  const cut = segment.subarray(0, segment.length - 10);
  assert.deepEqual(parseDnsStream(cut), parseDns(answer.subarray(0, answer.length - 10)));
  const two = Buffer.concat([segment, segment]);
  assert.deepEqual(parseDnsStream(two), parseDns(answer));
  assert.deepEqual(parseDnsStream(answer), parseDns(answer), 'the length came before');
  const part = answer.subarray(0, answer.length - 10);
  assert.deepEqual(parseDnsStream(part), parseDns(part), 'the same, and not all of it');
  // The middle of a long answer, and what is no DNS.
  for (const at of [3, 13, 20, 40]) assert.equal(parseDnsStream(answer.subarray(at)), undefined);
  assert.equal(parseDnsStream(Buffer.from('GET / HTTP/1.1\r\nHost: example.com\r\n\r\n')), undefined);
  assert.equal(parseDnsStream(u16(answer.length)), undefined);
});

test('no bytes make it throw, and what it answers is text', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 600 }), fc.nat(answer.length), (noise, at) => {
      for (const bytes of [noise, Buffer.concat([answer.subarray(0, at), noise])]) {
        parseDnsStream(bytes);
        const got = parseDns(bytes);
        // biome-ignore lint/suspicious/noControlCharactersInRegex: just those must not be there
        if (got !== undefined) assert.doesNotMatch(got.query, /[\u0000-\u0020\u007f-\uffff]/);
      }
    }),
    { numRuns: 5_000 },
  );
});

test('a pod knows an address by the names that it asked for; who answers unasked names nothing', () => {
  const names = createDnsNames();
  const parsed = parseDns(answer)!;
  assert.equal(names.answered('k', parsed, 900), undefined);
  names.asked('k', parsed, 500);
  assert.equal(names.answered('k', parsed, 900), 400);
  assert.equal(names.answered('k', parsed, 900), undefined);
  names.learn(5, parsed, 0);
  names.learn(5, { ...parsed, query: 'other.example.' }, 0);
  assert.deepEqual(names.names(5, '192.0.2.1', 1000), ['other.example', 'www.example.com']);
  assert.deepEqual(names.names(6, '192.0.2.1', 1000), []);
  assert.deepEqual(names.names(5, '192.0.2.1', 10 ** 9), []);
  names.forget(5);
  assert.deepEqual(names.names(5, '192.0.2.1', 1000), []);
});
