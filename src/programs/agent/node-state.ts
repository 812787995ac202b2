// What the agent keeps on disk besides endpoints: the compiler's numbers and the addresses that rest.
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';

/** A JSON file that is replaced whole. */
export interface StateFile<T> {
  /** Its content; undefined when it is not there, or unusable: then it is set aside and `onCorrupt` is told. */
  load(): T | undefined;
  save(value: T): void;
}

/** Keeps `path`. `check` throws on content that cannot be used. */
export function createStateFile<T>(
  path: string,
  check: (value: unknown) => T,
  onCorrupt: (path: string, reason: string) => void,
): StateFile<T> {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  return {
    load() {
      let text: string;
      try {
        text = readFileSync(path, 'utf8');
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
        throw error;
      }
      try {
        return check(JSON.parse(text));
      } catch (error) {
        renameSync(path, `${path}.corrupt`);
        onCorrupt(`${path}.corrupt`, (error as Error).message.replace(/\s+/g, ' '));
        return undefined;
      }
    },
    save(value) {
      writeFileSync(`${path}.tmp`, JSON.stringify(value), { mode: 0o600 });
      renameSync(`${path}.tmp`, path);
    },
  };
}
