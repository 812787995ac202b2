// Certificates for tests of connections, made with openssl: what is tested must not be tested by itself.
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Two authorities, `ca` and `other`; of the first one `server`, `renewed` and `client`, of the other `stranger`. */
export async function makeTestCertificates(folder: string) {
  const file = (name: string) => join(folder, name);
  const openssl = (...args: string[]) =>
    execFileSync('openssl', args, { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  for (const name of ['ca', 'other'])
    openssl(
      'req',
      '-x509',
      ...key,
      '-keyout',
      `${name}.key`,
      '-out',
      `${name}.crt`,
      '-subj',
      `/CN=${name}`,
      '-days',
      '2',
    );
  const issue = (name: string, authority: string, use: string) => {
    writeFileSync(
      file(`${name}.ext`),
      `extendedKeyUsage=${use}\nsubjectAltName=DNS:localhost,IP:127.0.0.1\nkeyUsage=digitalSignature\n`,
    );
    openssl('req', ...key, '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=${name}`);
    openssl(
      ...['x509', '-req', '-in', `${name}.csr`, '-CA', `${authority}.crt`, '-CAkey', `${authority}.key`, '-days', '2'],
      ...['-CAcreateserial', '-extfile', `${name}.ext`, '-out', `${name}.crt`],
    );
  };
  issue('server', 'ca', 'serverAuth');
  issue('renewed', 'ca', 'serverAuth');
  issue('client', 'ca', 'clientAuth');
  issue('stranger', 'other', 'clientAuth');
  return { file, read: (name: string) => readFileSync(file(name)) };
}
