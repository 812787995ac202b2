// Backends that were taken out of service by hand on this node: they keep the connections they have and get no new ones.
import type { StateFile } from './node-state.ts';

/** A backend in maintenance. */
export interface MaintenanceRow {
  readonly address: string;
  readonly port: number;
  readonly sinceMs: number;
}

/** The list; it outlives the agent. */
export interface Maintenance {
  has(address: string, port: number): boolean;
  rows(): MaintenanceRow[];
  /** Answers whether that changed anything. The list is on disk before it answers. */
  set(address: string, port: number, out: boolean): boolean;
}

/** Goes on with what the file says. `onChange` is called after each change. */
export function createMaintenance(
  file: StateFile<readonly MaintenanceRow[]>,
  onChange: () => void,
  nowMs: () => number = Date.now,
): Maintenance {
  const keyOf = (address: string, port: number) => `${address} ${port}`;
  const rows = new Map((file.load() ?? []).map((row) => [keyOf(row.address, row.port), row]));
  return {
    has: (address, port) => rows.size > 0 && rows.has(keyOf(address, port)),
    rows: () => [...rows.values()],
    set(address, port, out) {
      const key = keyOf(address, port);
      if (rows.has(key) === out) return false;
      const next = new Map(rows);
      if (out) next.set(key, { address, port, sinceMs: nowMs() });
      else next.delete(key);
      file.save([...next.values()]);
      rows.clear();
      for (const [each, row] of next) rows.set(each, row);
      onChange();
      return true;
    },
  };
}

/** Reads the file's content. Throws on what cannot be used. */
export function checkMaintenance(value: unknown): MaintenanceRow[] {
  if (!Array.isArray(value)) throw new Error('it is not a list');
  return value.map((each) => {
    const { address, port, sinceMs } = each as Partial<MaintenanceRow>;
    if (typeof address !== 'string' || typeof port !== 'number' || typeof sinceMs !== 'number')
      throw new Error('an entry has no address, port and sinceMs');
    return { address, port, sinceMs };
  });
}
