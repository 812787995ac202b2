// Certificates for who serves and reads flows: keys on the curve P-256, signed by one of two authorities.
import 'reflect-metadata';
import { createPrivateKey, randomBytes, webcrypto, X509Certificate } from 'node:crypto';
import { isIP } from 'node:net';
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  cryptoProvider,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  X509Certificate as ParsedCertificate,
  PemConverter,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509CertificateGenerator,
} from '@peculiar/x509';

/** A certificate and its key, as PEM. Of an authority that was renewed, the certificate before it follows. */
export interface Credential {
  readonly cert: string;
  readonly key: string;
}

/** What a certificate is for. */
export interface CertificateRequest {
  readonly commonName: string;
  /** Organizations: the groups of a client. */
  readonly groups?: readonly string[];
  /** DNS names and IP addresses. */
  readonly names: readonly string[];
  readonly use: readonly ('server' | 'client')[];
}

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const dayMs = 86_400_000;
/** Clocks of other machines may be behind. */
const backdateMs = 3_600_000;

cryptoProvider.set(webcrypto as never);

/** Makes an authority, which signs itself. */
export async function makeAuthority(commonName: string, days: number, nowMs: number): Promise<Credential> {
  const keys = await newKeys();
  const certificate = await X509CertificateGenerator.createSelfSigned({
    ...common(commonName, days, nowMs),
    keys,
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { cert: pem(certificate.toString('pem')), key: await keyPem(keys.privateKey) };
}

/** Makes a certificate signed by the authority. */
export async function makeCertificate(
  request: CertificateRequest,
  authority: Credential,
  days: number,
  nowMs: number,
): Promise<Credential> {
  const keys = await newKeys();
  const issuer = new X509Certificate(authority.cert);
  const signingKey = await webcrypto.subtle.importKey(
    'pkcs8',
    createPrivateKey(authority.key).export({ type: 'pkcs8', format: 'der' }),
    algorithm,
    false,
    ['sign'],
  );
  const uses = { server: ExtendedKeyUsage.serverAuth, client: ExtendedKeyUsage.clientAuth };
  const certificate = await X509CertificateGenerator.create({
    ...common(request.commonName, days, nowMs, request.groups),
    issuer: `CN=${commonNameOf(issuer)}`,
    publicKey: keys.publicKey,
    signingKey: signingKey as never,
    extensions: [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new ExtendedKeyUsageExtension(request.use.map((each) => uses[each])),
      // By its name alone a renewed authority is not told from the one before.
      await AuthorityKeyIdentifierExtension.create(new ParsedCertificate(authority.cert)),
      ...(request.names.length === 0
        ? []
        : [
            new SubjectAlternativeNameExtension(
              request.names.map((value) => ({ type: isIP(value) > 0 ? ('ip' as const) : ('dns' as const), value })),
            ),
          ]),
    ],
  });
  return { cert: pem(certificate.toString('pem')), key: await keyPem(keys.privateKey) };
}

/** What is wrong with a certificate for this use, or undefined when it can stay as it is. */
export function staleReason(
  credential: Credential,
  request: CertificateRequest,
  authority: Credential,
  renewDays: number,
  nowMs: number,
): string | undefined {
  let certificate: X509Certificate;
  try {
    certificate = new X509Certificate(credential.cert);
    if (!certificate.checkPrivateKey(createPrivateKey(credential.key))) return 'its key is another’s';
  } catch {
    return 'it cannot be read';
  }
  const issuer = new X509Certificate(authority.cert);
  if (!certificate.checkIssued(issuer) || !certificate.verify(issuer.publicKey)) return 'another authority signed it';
  if (commonNameOf(certificate) !== request.commonName) return 'it is somebody else’s';
  const groups = [...certificate.subject.matchAll(/^O=(.*)$/gm)].map((each) => each[1]);
  if (groups.join() !== (request.groups ?? []).join()) return 'it is of other groups';
  const names = new Set(
    certificate.subjectAltName?.split(', ').map((each) => each.replace(/^(DNS|IP Address):/, '')) ?? [],
  );
  // Node shows IPv6 addresses in full.
  const missing = request.names.filter((name) =>
    isIP(name) > 0 ? certificate.checkIP(name) === undefined : !names.has(name),
  );
  if (missing.length > 0) return `it lacks ${missing.join(', ')}`;
  return endsSoon(certificate, renewDays, nowMs);
}

/** Why an authority has to be made anew, or undefined. */
export function staleAuthorityReason(credential: Credential, renewDays: number, nowMs: number): string | undefined {
  try {
    const certificate = new X509Certificate(credential.cert);
    if (!certificate.ca || !certificate.checkPrivateKey(createPrivateKey(credential.key))) return 'it is no authority';
    return endsSoon(certificate, renewDays, nowMs);
  } catch {
    return 'it cannot be read';
  }
}

function endsSoon(certificate: X509Certificate, renewDays: number, nowMs: number): string | undefined {
  const end = certificate.validToDate.getTime();
  return end - nowMs < renewDays * dayMs ? `it ends on ${new Date(end).toISOString().slice(0, 10)}` : undefined;
}

function commonNameOf(certificate: X509Certificate): string {
  return /^CN=(.*)$/m.exec(certificate.subject)?.[1] ?? '';
}

function common(commonName: string, days: number, nowMs: number, groups: readonly string[] = []) {
  return {
    serialNumber: Buffer.concat([Buffer.from([0x01]), randomBytes(15)]).toString('hex'),
    subject: [`CN=${commonName}`, ...groups.map((group) => `O=${group}`)].join(', '),
    name: `CN=${commonName}`,
    notBefore: new Date(nowMs - backdateMs),
    notAfter: new Date(nowMs + days * dayMs),
    signingAlgorithm: algorithm,
  };
}

function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']) as Promise<webcrypto.CryptoKeyPair>;
}

async function keyPem(key: webcrypto.CryptoKey): Promise<string> {
  return pem(PemConverter.encode(await webcrypto.subtle.exportKey('pkcs8', key), 'PRIVATE KEY'));
}

function pem(text: string): string {
  return text.endsWith('\n') ? text : `${text}\n`;
}
