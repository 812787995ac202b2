// Endpoints on disk, one small file each, so that a restarted agent knows its pods before anything else answers.
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import type { EndpointRow } from '../../core/rows.ts';

const schema = z.object({
  id: z.int().min(1).max(65_535),
  containerId: z.string(),
  namespace: z.string(),
  pod: z.string(),
  podUid: z.string().optional(),
  serviceAccount: z.string().optional(),
  interfaceName: z.string(),
  ifindex: z.int().min(1),
  ipv4: z.string().optional(),
  ipv6: z.string().optional(),
  mac: z.string(),
  identity: z.int().min(1),
  labels: z.record(z.string(), z.string()),
  namedPorts: z.array(z.object({ name: z.string(), protocol: z.enum(['TCP', 'UDP', 'SCTP']), port: z.int() })),
  workload: z.object({ kind: z.string(), name: z.string() }).optional(),
  state: z.enum(['creating', 'waiting-for-identity', 'ready', 'disconnecting']),
  netns: z.string(),
  createdAtMs: z.number(),
});

/** A file that could not be read was set aside under this name. */
export interface SetAside {
  /** The endpoint's number. */
  readonly id: number;
  readonly file: string;
  readonly reason: string;
}

/** Where endpoints are kept. */
export interface EndpointStore {
  /** `lost`: the folder itself was not there. */
  load(): { rows: EndpointRow[]; setAside: SetAside[]; lost: boolean };
  save(row: EndpointRow): void;
  remove(id: number): void;
}

/** Keeps one file per endpoint in a folder, replaced whole so that a crash never leaves half of one. */
export function createEndpointStore(folder: string): EndpointStore {
  const lost = mkdirSync(folder, { recursive: true, mode: 0o700 }) !== undefined;
  return {
    load() {
      const rows: EndpointRow[] = [];
      const setAside: SetAside[] = [];
      for (const name of readdirSync(folder)) {
        const path = join(folder, name);
        if (name.endsWith('.tmp')) rmSync(path, { force: true });
        if (!/^\d+\.json$/.test(name)) continue;
        try {
          const row = schema.parse(JSON.parse(readFileSync(path, 'utf8')));
          if (`${row.id}.json` !== name) throw new Error(`it speaks of endpoint ${row.id}`);
          rows.push(row);
        } catch (error) {
          renameSync(path, `${path}.corrupt`);
          const reason = error instanceof z.ZodError ? z.prettifyError(error) : (error as Error).message;
          setAside.push({
            id: Number.parseInt(name, 10),
            file: `${path}.corrupt`,
            reason: reason.replace(/\s+/g, ' '),
          });
        }
      }
      return { rows, setAside, lost };
    },
    save(row) {
      const path = join(folder, `${row.id}.json`);
      writeFileSync(`${path}.tmp`, JSON.stringify(row), { mode: 0o600 });
      renameSync(`${path}.tmp`, path);
    },
    remove(id) {
      rmSync(join(folder, `${id}.json`), { force: true });
    },
  };
}
