// X.509 certificates for the lab's cluster (RFC 5280), with keys on the curve P-256: no program and no time needed.
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject, randomBytes, sign } from 'node:crypto';
import { isIPv4, isIPv6 } from 'node:net';
import { bitString, der, integer, objectId, octetString, sequence, setOfOne, time, utf8String, yes } from './der.ts';

/** Whom a certificate is for. Kubernetes takes the common name as the user and the organizations as the groups. */
export interface Subject {
  readonly commonName: string;
  readonly organizations?: readonly string[];
}

/** A key and the certificate that goes with it. */
export interface Credential {
  readonly key: KeyObject;
  readonly subject: Subject;
  readonly certificatePem: string;
}

const ids = {
  ecdsaWithSha256: '1.2.840.10045.4.3.2',
  commonName: '2.5.4.3',
  organization: '2.5.4.10',
  basicConstraints: '2.5.29.19',
  keyUsage: '2.5.29.15',
  extendedKeyUsage: '2.5.29.37',
  subjectAltName: '2.5.29.17',
  serverAuth: '1.3.6.1.5.5.7.3.1',
  clientAuth: '1.3.6.1.5.5.7.3.2',
} as const;

const validDays = 3650;

/** A new private key. */
export function newKey(): KeyObject {
  return generateKeyPairSync('ec', { namedCurve: 'prime256v1' }).privateKey;
}

/** A private key as PEM text. */
export function keyPem(key: KeyObject): string {
  return key.export({ type: 'sec1', format: 'pem' }).toString();
}

/** The public half of a private key as PEM text. */
export function publicKeyPem(key: KeyObject): string {
  return createPublicKey(createPrivateKey(keyPem(key)))
    .export({ type: 'spki', format: 'pem' })
    .toString();
}

function name(subject: Subject): Buffer {
  const part = (id: string, text: string) => setOfOne(sequence(objectId(id), utf8String(text)));
  return sequence(
    ...(subject.organizations ?? []).map((each) => part(ids.organization, each)),
    part(ids.commonName, subject.commonName),
  );
}

function extension(id: string, critical: boolean, content: Buffer): Buffer {
  return sequence(objectId(id), ...(critical ? [yes] : []), octetString(content));
}

/** The 4 or 16 bytes of an address. */
export function addressBytes(address: string): Buffer {
  if (isIPv4(address)) return Buffer.from(address.split('.').map(Number));
  const [before = '', after] = address.split('::');
  const groups = (text: string) => (text === '' ? [] : text.split(':').map((group) => Number.parseInt(group, 16)));
  const head = groups(before);
  const tail = after === undefined ? [] : groups(after);
  const middle = new Array<number>(8 - head.length - tail.length).fill(0);
  const bytes = Buffer.alloc(16);
  [...head, ...middle, ...tail].forEach((group, index) => {
    bytes.writeUInt16BE(group, index * 2);
  });
  return bytes;
}

/** GeneralName: an IP address or a DNS name. */
function altName(text: string): Buffer {
  return isIPv4(text) || isIPv6(text) ? der(0x87, addressBytes(text)) : der(0x82, Buffer.from(text));
}

/** What an authority's certificate may do, and what another one may. */
function extensions(isAuthority: boolean, altNames: readonly string[]): Buffer {
  const list = isAuthority
    ? [
        extension(ids.basicConstraints, true, sequence(yes)),
        extension(ids.keyUsage, true, bitString(Buffer.from([0b0000_0110]), 1)), // keyCertSign, cRLSign
      ]
    : [
        extension(ids.keyUsage, true, bitString(Buffer.from([0b1000_0000]), 7)), // digitalSignature
        extension(ids.extendedKeyUsage, false, sequence(objectId(ids.serverAuth), objectId(ids.clientAuth))),
      ];
  if (altNames.length > 0) list.push(extension(ids.subjectAltName, false, sequence(...altNames.map(altName))));
  return der(0xa3, sequence(...list));
}

/**
 * Makes a key and a certificate signed by `authority`, or by itself when that is undefined.
 * `altNames` are the IP addresses and DNS names that a server is reached by.
 */
export function issue(
  subject: Subject,
  authority: Credential | undefined,
  altNames: readonly string[] = [],
  now: Date = new Date(),
): Credential {
  const key = newKey();
  const algorithm = sequence(objectId(ids.ecdsaWithSha256));
  const notBefore = new Date(now.getTime() - 3_600_000);
  const notAfter = new Date(now.getTime() + validDays * 86_400_000);
  const publicKey = createPublicKey(createPrivateKey(keyPem(key))).export({ type: 'spki', format: 'der' });
  const body = sequence(
    der(0xa0, integer(Buffer.from([2]))), // version 3
    integer(randomBytes(16)),
    algorithm,
    name(authority?.subject ?? subject),
    sequence(time(notBefore), time(notAfter)),
    name(subject),
    publicKey,
    extensions(authority === undefined, altNames),
  );
  const signature = sign('sha256', body, authority?.key ?? key);
  const certificate = sequence(body, algorithm, bitString(signature));
  const lines = certificate.toString('base64').replace(/.{64}/g, '$&\n').trimEnd();
  return { key, subject, certificatePem: `-----BEGIN CERTIFICATE-----\n${lines}\n-----END CERTIFICATE-----\n` };
}
