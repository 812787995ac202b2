// Libraries that few need and that take long to load.
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

const require = createRequire(import.meta.url);

/** A module when it is first needed, without waiting: the one that `import` gives, not its copy for `require`. */
export function loadModule<T>(name: string): T {
  return require(fileURLToPath(import.meta.resolve(name))) as T;
}
