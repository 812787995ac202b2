// A class: a node-local number for addresses that no policy can tell apart.
import type { NamedPort } from './named-port.ts';

/** The primary key is `class`. Class 0 is never a row: it means "any peer". */
export interface ClassRow {
  readonly class: number;
  readonly identity: number;
  /** Of addresses where the API server answers too, beside a node's own identity. */
  readonly apiServer?: boolean;
  /** The blocks of policies that contain the address, sorted. */
  readonly prefixes: readonly string[];
  /** The named ports that policies speak of, with this address's numbers, sorted. */
  readonly namedPorts: readonly NamedPort[];
}
