// Sockets that have a path.
import { lstatSync, rmSync } from 'node:fs';

/** Removes the socket that an earlier run left at the path. Whatever else is there stays, and to listen there fails. */
export function removeOldSocket(path: string): void {
  if (lstatSync(path, { throwIfNoEntry: false })?.isSocket()) rmSync(path, { force: true });
}
