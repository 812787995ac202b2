// Certificates of receivers and their clients in tests, as files.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { issue } from '../../lab/certificates.ts';

/** Where they are, in PEM. */
export interface CertificateFiles {
  readonly ca: string;
  /** Another authority, which has signed nothing. */
  readonly otherCa: string;
  /** For localhost, 127.0.0.1 and ::1. */
  readonly certificate: string;
  readonly key: string;
  /** Key and certificate. */
  readonly bundle: string;
}

/** Writes certificates into `folder`. */
export function writeCertificates(folder: string): CertificateFiles {
  const ca = issue({ commonName: 'test authority' }, undefined);
  const server = issue({ commonName: 'localhost' }, ca, ['localhost', '127.0.0.1', '::1']);
  const key = server.key.export({ type: 'pkcs8', format: 'pem' }).toString();
  const write = (name: string, text: string) => {
    const file = join(folder, name);
    writeFileSync(file, text);
    return file;
  };
  return {
    ca: write('ca.pem', ca.certificatePem),
    otherCa: write('other-ca.pem', issue({ commonName: 'another authority' }, undefined).certificatePem),
    certificate: write('server.pem', server.certificatePem),
    key: write('server.key', key),
    bundle: write('server-bundle.pem', `${key}${server.certificatePem}`),
  };
}
