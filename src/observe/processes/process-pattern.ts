// How a process is named in filters: by the base name of its program, by the program's path, or by its exec id.
import { compileWildcard } from '../flows/safe-pattern.ts';

/** What patterns look at. */
export interface NamedProcess {
  readonly execId: string;
  readonly binary: string;
}

/**
 * `curl`, `/usr/bin/*`, or an exec id; `*` stands for any characters. With a slash it is a path, whole; without one it is
 * the base name or the exec id. Undefined when it is too long.
 */
export function compileProcessPattern(text: string): ((process: NamedProcess) => boolean) | undefined {
  const matches = compileWildcard(text);
  if (matches === undefined) return undefined;
  if (text.includes('/')) return ({ binary }) => matches(binary);
  return ({ binary, execId }) =>
    execId === text || (binary !== '' && matches(binary.slice(binary.lastIndexOf('/') + 1)));
}
