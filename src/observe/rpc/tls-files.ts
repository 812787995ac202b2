// Key, certificate and authorities from files, read again when they change: who renews certificates restarts nobody.
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createSecureContext } from 'node:tls';
import { errorText } from '../../core/errors.ts';

/** Where the parts are. Without a key and certificate there is only whom to trust. */
export interface TlsFiles {
  readonly certFile?: string;
  readonly keyFile?: string;
  readonly caFile?: string;
}

/** The parts as Node takes them. */
export interface TlsMaterial {
  readonly cert?: Buffer;
  readonly key?: Buffer;
  readonly ca?: Buffer;
}

/** Material that follows its files. */
export interface WatchedTls {
  readonly material: TlsMaterial;
  /** When the certificate ends, in milliseconds since the epoch; undefined without one. */
  readonly validToMs: number | undefined;
  /** Why the files as they are now cannot be used; what was read before still is. */
  readonly problem: string | undefined;
  onChange(listener: () => void): void;
  close(): void;
}

const lookEveryMs = 5_000;

/** Reads the files; throws when they cannot be used, or do not belong together. */
export function readTlsFiles(files: TlsFiles): TlsMaterial {
  const read = (file: string | undefined) => (file === undefined ? undefined : readFileSync(file));
  const material = { cert: read(files.certFile), key: read(files.keyFile), ca: read(files.caFile) };
  createSecureContext(material);
  if (material.ca !== undefined) new X509Certificate(material.ca);
  return material;
}

/** Follows the files: looks at them again every few seconds, as mounted Secrets are changed by turning a link. */
export function watchTlsFiles(files: TlsFiles, everyMs = lookEveryMs): WatchedTls {
  let material = readTlsFiles(files);
  let problem: string | undefined;
  const listeners: (() => void)[] = [];
  const timer = setInterval(() => {
    try {
      const now = readTlsFiles(files);
      problem = undefined;
      if ((['cert', 'key', 'ca'] as const).every((part) => same(now[part], material[part]))) return;
      material = now;
      for (const listener of listeners) listener();
    } catch (error) {
      // Half of the files may be written: the next look decides.
      problem = errorText(error);
    }
  }, everyMs);
  timer.unref();
  return {
    get material() {
      return material;
    },
    get validToMs() {
      return material.cert === undefined ? undefined : new X509Certificate(material.cert).validToDate.getTime();
    },
    get problem() {
      return problem;
    },
    onChange: (listener) => listeners.push(listener),
    close: () => clearInterval(timer),
  };
}

function same(a: Buffer | undefined, b: Buffer | undefined): boolean {
  return a === undefined || b === undefined ? a === b : a.equals(b);
}
