// Carries frontends into the kernel: numbers their backends, lays out their slots, and switches a frontend to its new slots
// in one write. Order is the contract: backends, slots, source ranges, then the frontend that points to them; the other
// way round when it goes. What an earlier run left is taken over number by number, so a restart changes nothing.
import type { Target, TargetResult } from '../../core/reconciler.ts';
import type { FrontendBackend, FrontendRow } from '../../core/rows.ts';
import type { BpfMap } from '../../kernel/bpf-map.ts';
import { datapathMaps, type Service, ServiceFlags } from '../../kernel/datapath.gen.ts';
import { isMapFull } from '../../kernel/kernel-error.ts';
import type { ArrayMemory } from '../../kernel/mmap-array.ts';
import { createBackendNumbers, type GoneBackend, type NumberedBackend } from './backend-numbers.ts';
import { hash32 } from './maglev.ts';
import { directKey, keyBytesOf, keyText, serviceKey, sourceRangeKey } from './service-keys.ts';
import { createSlotTables, type SlotTable } from './slot-tables.ts';

/** The maps that are written here. */
export interface ServiceMaps {
  readonly services: BpfMap;
  readonly sourceRanges: BpfMap;
  readonly directBackends: BpfMap;
  readonly slots: ArrayMemory;
  readonly backends: ArrayMemory;
  readonly backendCounts: ArrayMemory;
}

/** What the kernel was told of a frontend. */
export interface WrittenFrontend {
  readonly row: FrontendRow;
  readonly id: number;
  readonly table: SlotTable;
  /** Numbers of the backends, in the row's order. */
  readonly backends: readonly number[];
}

/** How full the tables are. */
export interface ServicePressure {
  readonly frontends: { readonly used: number; readonly capacity: number };
  readonly backends: { readonly used: number; readonly capacity: number };
  readonly slots: { readonly used: number; readonly capacity: number };
  /** Frontends that have no Maglev table because there was no room for it. */
  readonly withoutTable: number;
}

/** The one writer of the service maps. */
export interface ServiceTarget extends Target<FrontendRow> {
  get(key: string): WrittenFrontend | undefined;
  byId(id: number): WrittenFrontend | undefined;
  backendByNumber(number: number): NumberedBackend | undefined;
  /** Connections that the datapath has handed to a backend, by its number. */
  connections(number: number): number;
  /** Backends that went since the last call: sockets that talk to them are to be closed. */
  takeGone(): GoneBackend[];
  pressure(): ServicePressure;
}

const restMs = 2_000;
const slotsPerElement = 16;
const admitted = Uint8Array.of(1, 0, 0, 0);

/** Takes the maps over as they are. `nowMs` never goes back. */
export function createServiceTarget(maps: ServiceMaps, nowMs: () => number = () => performance.now()): ServiceTarget {
  const numbers = createBackendNumbers({ memory: maps.backends, counts: maps.backendCounts, restMs, nowMs });
  const tables = createSlotTables({ memory: maps.slots, perElement: slotsPerElement, restMs, nowMs });
  const written = new Map<string, WrittenFrontend>();
  const byId = new Map<number, WrittenFrontend>();

  // What is in the kernel already.
  const leftServices = new Map<string, Service>();
  for (const { key, value } of maps.services.entries()) {
    const service = datapathMaps.services.value.decode(value);
    leftServices.set(keyText(key), service);
    tables.claim(service.firstSlot, service.slotCount);
  }
  const leftSourceRanges = new Set(maps.sourceRanges.entries().map(({ key }) => keyText(key)));
  const leftDirect = new Map(maps.directBackends.entries().map(({ key, value }) => [keyText(key), keyText(value)]));
  const idsInUse = new Set([...leftServices.values()].map((service) => service.id));
  // An id is not given again: flows and affinity remember it for hours.
  let nextId = 1 + [...idsInUse].reduce((most, id) => Math.max(most, id), 0);
  let withoutTable = 0;
  let pruned = false;

  function takeId(): number {
    while (idsInUse.has(nextId)) nextId++;
    idsInUse.add(nextId);
    return nextId++;
  }

  function writeSourceRanges(id: number, row: FrontendRow, before: FrontendRow | undefined): void {
    for (const cidr of row.sourceRanges ?? []) {
      const key = sourceRangeKey(id, cidr);
      if (!leftSourceRanges.delete(keyText(key)) && !before?.sourceRanges?.includes(cidr))
        maps.sourceRanges.update(key, admitted);
    }
  }

  function dropSourceRanges(id: number, row: FrontendRow | undefined, except?: FrontendRow): void {
    for (const cidr of row?.sourceRanges ?? [])
      if (!except?.sourceRanges?.includes(cidr)) maps.sourceRanges.delete(sourceRangeKey(id, cidr));
  }

  /** Pods of this node that other nodes may send packets on to, whose answers go straight to the client. */
  function writeDirect(now: ReadonlyMap<string, number>, before: ReadonlyMap<string, number>): void {
    for (const [key, number] of now) {
      if (before.get(key) === number) continue;
      const value = new Uint8Array(Uint32Array.of(number).buffer);
      const left = leftDirect.get(key);
      leftDirect.delete(key);
      if (left !== keyText(value)) maps.directBackends.update(keyBytesOf(key), value);
    }
  }

  function dropDirect(keys: ReadonlyMap<string, number>, except?: ReadonlyMap<string, number>): void {
    for (const key of keys.keys()) if (!except?.has(key)) maps.directBackends.delete(keyBytesOf(key));
  }

  function update(row: FrontendRow): void {
    const keyBytes = serviceKey(row);
    const key = keyText(keyBytes);
    const before = written.get(row.key);
    const left = leftServices.get(key);
    const backends = numbers.use(row);
    if (backends === undefined) throw new Error(`there is no number left for its backends (${numbers.capacity})`);
    const table = tables.use(row, backends, left && { first: left.firstSlot, count: left.slotCount });
    if (table === undefined) {
      numbers.drop(row, backends);
      throw new Error(`there is no room for its slots (${tables.ranges.capacity})`);
    }
    // What is remembered of a frontend under its id is one Service's: flows, affinity, what others may name.
    const known = before === undefined ? left : { id: before.id, owner: ownerOf(before.row) };
    const id = known?.owner === ownerOf(row) ? known.id : takeId();
    const idBefore = known?.id;
    const sameRow = idBefore === id ? before?.row : undefined;
    const after: WrittenFrontend = { row, id, table, backends };
    const value = serviceValue(after);
    const direct = directKeys(after);
    const directBefore = before === undefined ? new Map<string, number>() : directKeys(before);
    try {
      writeSourceRanges(id, row, sameRow);
      writeDirect(direct, directBefore);
      const now = before === undefined ? left && datapathMaps.services.value.encode(left) : serviceValue(before);
      if (now === undefined || Buffer.compare(now, value) !== 0) maps.services.update(keyBytes, value);
    } catch (error) {
      // What was there before goes on; of what is new nothing stays.
      dropSourceRanges(id, row, sameRow);
      dropDirect(direct, directBefore);
      tables.drop(table);
      numbers.drop(row, backends);
      if (id !== idBefore) idsInUse.delete(id);
      throw error;
    }
    leftServices.delete(key);
    if (idBefore !== undefined && idBefore !== id) {
      byId.delete(idBefore);
      idsInUse.delete(idBefore);
    }
    if (before !== undefined) {
      dropSourceRanges(before.id, before.row, sameRow && row);
      dropDirect(directBefore, direct);
      letGo(before);
    }
    if (row.algorithm !== table.algorithm) withoutTable++;
    byId.set(id, after);
    written.set(row.key, after);
  }

  function letGo(before: WrittenFrontend): void {
    if (before.row.algorithm !== before.table.algorithm) withoutTable--;
    tables.drop(before.table);
    numbers.drop(before.row, before.backends);
  }

  function remove(row: FrontendRow): void {
    const before = written.get(row.key);
    maps.services.delete(serviceKey(row));
    if (before === undefined) return;
    dropSourceRanges(before.id, before.row);
    dropDirect(directKeys(before));
    written.delete(row.key);
    byId.delete(before.id);
    idsInUse.delete(before.id);
    letGo(before);
  }

  const each = (rows: readonly FrontendRow[], work: (row: FrontendRow) => void): TargetResult => {
    const failures: { key: string; error: string }[] = [];
    for (const row of rows) {
      try {
        work(row);
      } catch (error) {
        failures.push({ key: row.key, error: isMapFull(error) ? fullText(error as Error) : (error as Error).message });
      }
    }
    return failures;
  };

  return {
    update: (rows) => each(rows, update),
    delete: (rows) => each(rows, remove),
    prune() {
      if (pruned) return;
      pruned = true;
      for (const [text, service] of leftServices) {
        maps.services.delete(keyBytesOf(text));
        idsInUse.delete(service.id);
      }
      for (const text of leftSourceRanges) maps.sourceRanges.delete(keyBytesOf(text));
      for (const text of leftDirect.keys()) maps.directBackends.delete(keyBytesOf(text));
      tables.prune();
      numbers.prune();
      leftServices.clear();
      leftSourceRanges.clear();
      leftDirect.clear();
    },
    get: (key) => written.get(key),
    byId: (id) => byId.get(id),
    backendByNumber: numbers.get,
    connections: numbers.connections,
    takeGone: numbers.takeGone,
    pressure: () => ({
      frontends: { used: written.size, capacity: maps.services.maxEntries },
      backends: { used: numbers.used, capacity: numbers.capacity },
      slots: { used: tables.ranges.used, capacity: tables.ranges.capacity },
      withoutTable,
    }),
  };
}

/** Whose a frontend is, as its row says it. */
const ownerOf = (row: FrontendRow) => hash32(`${row.service}:${row.portName}/${row.protocol}`, 1);

function serviceValue({ row, id, table }: WrittenFrontend): Uint8Array {
  return datapathMaps.services.value.encode({
    id,
    firstSlot: table.first,
    slotCount: table.count,
    affinitySeconds: row.affinitySeconds,
    owner: ownerOf(row),
    flags:
      (table.algorithm === 'maglev' ? ServiceFlags.SERVICE_MAGLEV : 0) |
      (row.affinitySeconds > 0 ? ServiceFlags.SERVICE_AFFINITY : 0) |
      (row.sourceRanges !== undefined ? ServiceFlags.SERVICE_SOURCE_RANGES : 0) |
      (row.onlyLocal ? ServiceFlags.SERVICE_ONLY_LOCAL : 0) |
      (row.kind === 'NodePort' ? ServiceFlags.SERVICE_NODE_PORT : 0) |
      (row.directReturn ? ServiceFlags.SERVICE_DSR : 0),
  });
}

/** Keys of the backends that other nodes may name, and their numbers. */
function directKeys({ id, row, backends }: WrittenFrontend): Map<string, number> {
  const keys = new Map<string, number>();
  if (row.directReturn)
    for (const [i, backend] of row.backends.entries())
      if (isDirect(backend)) keys.set(keyText(directKey(id, row, backend)), backends[i]!);
  return keys;
}

const isDirect = (backend: FrontendBackend) => backend.role.where === 'pod';

const fullText = (error: Error) => `a map is full: ${error.message}`;
