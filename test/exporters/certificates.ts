// Certificates of receivers and their clients in tests, as files.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { makeTestCertificates } from '../../src/observe/rpc/testdata/certificates.ts';

/** Where they are, in PEM. */
export interface CertificateFiles {
  readonly ca: string;
  /** Another authority, which has signed none of the others. */
  readonly otherCa: string;
  /** Of the receiver, for localhost and 127.0.0.1. */
  readonly certificate: string;
  readonly key: string;
  /** Key and certificate of the receiver. */
  readonly bundle: string;
  readonly clientCertificate: string;
  readonly clientKey: string;
}

/** Writes certificates into `folder`. */
export async function writeCertificates(folder: string): Promise<CertificateFiles> {
  const { file } = await makeTestCertificates(folder);
  const bundle = join(folder, 'server-bundle.pem');
  writeFileSync(bundle, `${readFileSync(file('server.key'), 'utf8')}${readFileSync(file('server.crt'), 'utf8')}`);
  return {
    ca: file('ca.crt'),
    otherCa: file('other.crt'),
    certificate: file('server.crt'),
    key: file('server.key'),
    bundle,
    clientCertificate: file('client.crt'),
    clientKey: file('client.key'),
  };
}
