// The few parts of ASN.1's distinguished encoding (X.690) that a certificate is written in.

/** A tag, the length, the content. */
export function der(tag: number, ...contents: Buffer[]): Buffer {
  const content = Buffer.concat(contents);
  const { length } = content;
  if (length < 0x80) return Buffer.concat([Buffer.from([tag, length]), content]);
  const lengthBytes: number[] = [];
  for (let rest = length; rest > 0; rest >>>= 8) lengthBytes.unshift(rest & 0xff);
  return Buffer.concat([Buffer.from([tag, 0x80 | lengthBytes.length, ...lengthBytes]), content]);
}

/** SEQUENCE of what is given, in this order. */
export const sequence = (...contents: Buffer[]): Buffer => der(0x30, ...contents);

/** SET of what is given; one element only, as sets of more would have to be sorted. */
export const setOfOne = (content: Buffer): Buffer => der(0x31, content);

/** INTEGER from unsigned bytes, big end first. */
export function integer(bytes: Buffer): Buffer {
  let start = 0;
  while (start < bytes.length - 1 && bytes[start] === 0) start++;
  const short = bytes.subarray(start);
  // A first bit of 1 would make the number negative.
  return der(0x02, (short[0] ?? 0) & 0x80 ? Buffer.concat([Buffer.from([0]), short]) : short);
}

/** OBJECT IDENTIFIER from its dotted form. */
export function objectId(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number);
  const bytes = [first * 40 + second];
  for (const part of rest) {
    const digits = [part & 0x7f];
    for (let left = part >>> 7; left > 0; left >>>= 7) digits.unshift((left & 0x7f) | 0x80);
    bytes.push(...digits);
  }
  return der(0x06, Buffer.from(bytes));
}

/** UTF8String. */
export const utf8String = (text: string): Buffer => der(0x0c, Buffer.from(text));

/** BOOLEAN true. */
export const yes: Buffer = der(0x01, Buffer.from([0xff]));

/** BIT STRING of whole bytes, or with `unusedBits` bits at the end that do not count. */
export const bitString = (bytes: Buffer, unusedBits = 0): Buffer => der(0x03, Buffer.from([unusedBits]), bytes);

/** OCTET STRING. */
export const octetString = (bytes: Buffer): Buffer => der(0x04, bytes);

/** A time in whole seconds of UTC: UTCTime, and GeneralizedTime from 2050 on, as RFC 5280 wants it. */
export function time(date: Date): Buffer {
  const digits = date.toISOString().replace(/[-:T]|\.\d+/g, '');
  return date.getUTCFullYear() < 2050 ? der(0x17, Buffer.from(digits.slice(2))) : der(0x18, Buffer.from(digits));
}
