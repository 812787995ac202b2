// Files as commands take them: files, folders (every YAML and JSON file below them), `-` for standard input.
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join, normalize } from 'node:path';
import { WeirError } from '../../../core/errors.ts';
import {
  type Manifest,
  type NamedText,
  readManifests,
  type UnreadText,
} from '../../../secure/policy/manifests/read-manifests.ts';

const extension = /\.(ya?ml|json)$/;

/** The texts of all files, each once, in the order of their names. Throws NOT_FOUND for what is not there. */
export function readFiles(paths: readonly string[]): NamedText[] {
  const files = new Set(paths.flatMap((path) => (path === '-' ? ['-'] : filesOf(path))));
  return [...files].map((file) => ({
    file: file === '-' ? '<stdin>' : file,
    text: readFileSync(file === '-' ? 0 : file, 'utf8'),
  }));
}

/** The objects of all files. Throws CONFIG_INVALID for a file that cannot be read as YAML. */
export function readObjects(paths: readonly string[]): readonly Manifest[] {
  const { manifests, unread } = readManifests(readFiles(paths));
  if (unread.length > 0) throw unreadable(unread[0]!);
  return manifests;
}

/** CONFIG_INVALID for a text that is no YAML. */
function unreadable({ file, line, column, message }: UnreadText): WeirError {
  return new WeirError(
    'CONFIG_INVALID',
    `${file}:${line}:${column}: ${message}`,
    '`weir policy validate` shows all problems.',
  );
}

function filesOf(path: string): string[] {
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats === undefined)
    throw new WeirError('NOT_FOUND', `there is no file ${path}`, 'Give files, folders, or - for standard input.');
  return stats.isDirectory() ? filesBelow(path) : [normalize(path)];
}

function filesBelow(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true })
    .filter(({ name }) => !name.startsWith('.') && name !== 'node_modules')
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) => {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) return filesBelow(path);
      return extension.test(entry.name) && statSync(path, { throwIfNoEntry: false })?.isFile() ? [path] : [];
    });
}
