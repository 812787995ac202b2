// Carries frontends into the kernel: numbers their backends, lays out their slots, and switches a frontend to its new slots
// in one write. Order is the contract: backends, slots, source ranges, then the frontend that points to them; the other
// way round when it goes. What an earlier run left is taken over number by number, so a restart changes nothing.
import type { Target, TargetResult } from '../../core/reconciler.ts';
import { type FrontendBackend, type FrontendRow, protocolNumbers } from '../../core/rows.ts';
import type { BpfMap } from '../../kernel/bpf-map.ts';
import {
  BackendFlags,
  BackendOffset,
  datapathMaps,
  type Service,
  ServiceFlags,
  ServiceScope,
} from '../../kernel/datapath.gen.ts';
import { isMapFull } from '../../kernel/kernel-error.ts';
import type { MappedArray } from '../../kernel/mmap-array.ts';
import { addressBytes, blockKey } from '../datapath/address-keys.ts';
import { hash32, maglevSize, maglevTable } from './maglev.ts';
import { createSlotRanges } from './slot-ranges.ts';

/** The maps that are written here. */
export interface ServiceMaps {
  readonly services: BpfMap;
  readonly sourceRanges: BpfMap;
  readonly directBackends: BpfMap;
  readonly slots: MappedArray;
  readonly backends: MappedArray;
}

/** What the kernel was told of a frontend. */
export interface WrittenFrontend {
  readonly row: FrontendRow;
  readonly id: number;
  readonly firstSlot: number;
  readonly slotCount: number;
  readonly algorithm: FrontendRow['algorithm'];
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
  backendByNumber(number: number): { readonly owner: string; readonly backend: FrontendBackend } | undefined;
  /** Backends that went since the last call: sockets that talk to them are to be closed. */
  takeGone(): number[];
  pressure(): ServicePressure;
}

const restMs = 2_000;
const slotsPerElement = 16;

interface BackendSlot {
  readonly number: number;
  readonly generation: number;
  readonly owner: string;
  backend: FrontendBackend;
  users: number;
}

interface SlotTable {
  readonly first: number;
  readonly count: number;
  readonly algorithm: FrontendRow['algorithm'];
  users: number;
}

/** Takes the maps over as they are. */
export function createServiceTarget(maps: ServiceMaps, nowMs: () => number = Date.now): ServiceTarget {
  const backendCapacity = maps.backends.bytes.length / maps.backends.strideBytes;
  const ranges = createSlotRanges({
    capacity: (maps.slots.bytes.length / maps.slots.strideBytes) * slotsPerElement,
    align: slotsPerElement,
    restMs,
    nowMs,
  });
  const written = new Map<string, WrittenFrontend & { tableKey: string }>();
  const byId = new Map<number, string>();
  const backends = new Map<string, BackendSlot>();
  const byNumber = new Map<number, string>();
  const tables = new Map<string, SlotTable>();
  const gone: number[] = [];

  // What is in the kernel already: ids by key, ranges in use, backends by what their generation says of them.
  const leftServices = new Map<string, Service>();
  const leftRanges = new Map<number, { first: number; count: number }>();
  for (const { key, value } of maps.services.entries()) {
    const service = datapathMaps.services.value.decode(value);
    leftServices.set(keyText(key), service);
    if (
      service.slotCount > 0 &&
      !leftRanges.has(service.firstSlot) &&
      ranges.claim(service.firstSlot, service.slotCount)
    )
      leftRanges.set(service.firstSlot, { first: service.firstSlot, count: service.slotCount });
  }
  const leftBackends = new Map<number, number>();
  const usedNumbers = new Set<number>([0]);
  for (let number = 1; number < backendCapacity; number++) {
    const offset = number * maps.backends.strideBytes;
    if ((maps.backends.bytes[offset + BackendOffset.flags]! & BackendFlags.BACKEND_USED) === 0) continue;
    leftBackends.set(maps.backends.view.getUint32(offset + BackendOffset.generation, true), number);
    usedNumbers.add(number);
  }
  const leftSourceRanges = new Set(maps.sourceRanges.entries().map(({ key }) => keyText(key)));
  const leftDirect = new Set(maps.directBackends.entries().map(({ key }) => keyText(key)));
  const idsInUse = new Set([...leftServices.values()].map((service) => service.id));
  let nextId = 1;
  let nextNumber = 1;
  const restingNumbers: { number: number; untilMs: number }[] = [];
  let withoutTable = 0;
  let pruned = false;

  function takeId(key: string): number {
    const left = leftServices.get(key);
    if (left !== undefined) return left.id;
    while (idsInUse.has(nextId)) nextId++;
    idsInUse.add(nextId);
    return nextId++;
  }

  function takeNumber(generation: number): number | undefined {
    const left = leftBackends.get(generation);
    if (left !== undefined) {
      leftBackends.delete(generation);
      return left;
    }
    const now = nowMs();
    if (restingNumbers.length > 0 && restingNumbers[0]!.untilMs <= now) {
      const { number } = restingNumbers.shift()!;
      usedNumbers.add(number);
      return number;
    }
    while (nextNumber < backendCapacity && usedNumbers.has(nextNumber)) nextNumber++;
    if (nextNumber >= backendCapacity) return undefined;
    usedNumbers.add(nextNumber);
    return nextNumber++;
  }

  function writeBackend(slot: BackendSlot, row: FrontendRow): void {
    const { backend, number } = slot;
    const value = datapathMaps.backends.value.encode({
      addr: addressBytes(backend.address),
      port: backend.port,
      protocol: protocolNumbers[row.protocol],
      flags:
        BackendFlags.BACKEND_USED |
        (backend.state === 'serving' ? BackendFlags.BACKEND_SERVING : 0) |
        (backend.where === 'pod'
          ? BackendFlags.BACKEND_LOCAL
          : backend.where === 'node'
            ? BackendFlags.BACKEND_NODE
            : 0),
      generation: slot.generation,
    });
    const offset = number * maps.backends.strideBytes;
    if (Buffer.compare(maps.backends.bytes.subarray(offset, offset + value.length), value) !== 0)
      maps.backends.bytes.set(value, offset);
  }

  function freeBackend(name: string, slot: BackendSlot): void {
    backends.delete(name);
    byNumber.delete(slot.number);
    const offset = slot.number * maps.backends.strideBytes;
    maps.backends.bytes.fill(0, offset, offset + maps.backends.strideBytes);
    usedNumbers.delete(slot.number);
    restingNumbers.push({ number: slot.number, untilMs: nowMs() + restMs });
    gone.push(slot.number);
  }

  /** The numbers of a row's backends; each is used once more. Undefined when there is no number left. */
  function useBackends(row: FrontendRow): number[] | undefined {
    const numbers: number[] = [];
    for (const backend of row.backends) {
      const name = backendName(row, backend);
      let slot = backends.get(name);
      if (slot === undefined) {
        const generation = hash32(name, 1) || 1;
        const number = takeNumber(generation);
        if (number === undefined) {
          for (const taken of numbers) dropBackend(taken);
          return undefined;
        }
        slot = { number, generation, owner: `${row.service}:${row.portName}`, backend, users: 0 };
        backends.set(name, slot);
        byNumber.set(number, name);
      }
      slot.users++;
      slot.backend = backend;
      writeBackend(slot, row);
      numbers.push(slot.number);
    }
    return numbers;
  }

  function dropBackend(number: number): void {
    const name = byNumber.get(number);
    const slot = name === undefined ? undefined : backends.get(name);
    if (slot !== undefined && --slot.users === 0) freeBackend(name!, slot);
  }

  /** The slots of a row, shared with other frontends of the same backends. */
  function useTable(row: FrontendRow, numbers: readonly number[], key: string): SlotTable & { key: string } {
    const serving = row.backends.flatMap((backend, i) =>
      backend.state === 'serving' && backend.weight > 0 ? [{ backend, number: numbers[i]! }] : [],
    );
    const empty = { key: '', first: 0, count: 0, algorithm: row.algorithm, users: 0 };
    if (serving.length === 0) return empty;
    for (const algorithm of row.algorithm === 'maglev' ? (['maglev', 'random'] as const) : (['random'] as const)) {
      const tableKey = `${algorithm} ${serving.map((each) => `${each.number}*${each.backend.weight}`).join(' ')}`;
      const shared = tables.get(tableKey);
      if (shared !== undefined) {
        shared.users++;
        return { ...shared, key: tableKey };
      }
      const content = slotsOf(algorithm, serving);
      const first = placeTable(content, leftServices.get(key));
      if (first === undefined) continue;
      const table = { first, count: content.length, algorithm, users: 1 };
      tables.set(tableKey, table);
      return { ...table, key: tableKey };
    }
    throw new Error('there is no room for its slots');
  }

  function placeTable(content: Uint32Array, left: Service | undefined): number | undefined {
    if (left !== undefined && left.slotCount === content.length && leftRanges.has(left.firstSlot)) {
      const at = left.firstSlot;
      if (content.every((number, i) => maps.slots.u32[at + i] === number)) {
        leftRanges.delete(at);
        return at;
      }
    }
    const first = ranges.take(content.length);
    if (first !== undefined) maps.slots.u32.set(content, first);
    return first;
  }

  function dropTable(key: string): void {
    const table = tables.get(key);
    if (table === undefined || --table.users > 0) return;
    tables.delete(key);
    ranges.release(table.first, table.count);
  }

  function writeSourceRanges(id: number, row: FrontendRow, before: FrontendRow | undefined): void {
    for (const cidr of row.sourceRanges ?? []) {
      const key = sourceRangeKey(id, cidr);
      leftSourceRanges.delete(keyText(key));
      if (maps.sourceRanges.lookup(key) === undefined) maps.sourceRanges.update(key, Uint8Array.of(1, 0, 0, 0));
    }
    for (const cidr of before?.sourceRanges ?? [])
      if (!row.sourceRanges?.includes(cidr)) maps.sourceRanges.delete(sourceRangeKey(id, cidr));
  }

  /** Pods of this node that other nodes may send packets on to, whose answers go straight to the client. */
  function writeDirect(
    id: number,
    row: FrontendRow,
    numbers: readonly number[],
    before: WrittenFrontend | undefined,
  ): void {
    const now = new Set<string>();
    for (const [i, backend] of directBackendsOf(row).entries()) {
      if (backend === undefined) continue;
      const key = directKey(id, row, backend);
      now.add(keyText(key));
      leftDirect.delete(keyText(key));
      maps.directBackends.update(key, new Uint8Array(Uint32Array.of(numbers[i]!).buffer));
    }
    for (const backend of before === undefined ? [] : directBackendsOf(before.row)) {
      if (backend === undefined) continue;
      const key = directKey(id, row, backend);
      if (!now.has(keyText(key))) maps.directBackends.delete(key);
    }
  }

  function update(row: FrontendRow): void {
    const keyBytes = serviceKey(row);
    const key = keyText(keyBytes);
    const before = written.get(row.key);
    const numbers = useBackends(row);
    if (numbers === undefined) throw new Error(`there is no number left for its backends (${backendCapacity})`);
    let table: ReturnType<typeof useTable>;
    try {
      table = useTable(row, numbers, key);
    } catch (error) {
      for (const number of numbers) dropBackend(number);
      throw error;
    }
    const id = before?.id ?? takeId(key);
    const value = datapathMaps.services.value.encode({
      id,
      firstSlot: table.first,
      slotCount: table.count,
      affinitySeconds: row.affinitySeconds,
      flags:
        (table.algorithm === 'maglev' ? ServiceFlags.SERVICE_MAGLEV : 0) |
        (row.affinitySeconds > 0 ? ServiceFlags.SERVICE_AFFINITY : 0) |
        (row.sourceRanges !== undefined ? ServiceFlags.SERVICE_SOURCE_RANGES : 0) |
        (row.onlyLocal ? ServiceFlags.SERVICE_ONLY_LOCAL : 0) |
        (row.kind === 'NodePort' ? ServiceFlags.SERVICE_NODE_PORT : 0) |
        (row.directReturn ? ServiceFlags.SERVICE_DSR : 0),
    });
    try {
      writeSourceRanges(id, row, before?.row);
      writeDirect(id, row, numbers, before);
      const now = maps.services.lookup(keyBytes);
      if (now === undefined || Buffer.compare(now, value) !== 0) maps.services.update(keyBytes, value);
    } catch (error) {
      for (const number of numbers) dropBackend(number);
      dropTable(table.key);
      if (before === undefined) idsInUse.delete(id);
      throw error;
    }
    leftServices.delete(key);
    if (before !== undefined) letGo(before);
    if (row.algorithm !== table.algorithm) withoutTable++;
    byId.set(id, row.key);
    written.set(row.key, {
      row,
      id,
      firstSlot: table.first,
      slotCount: table.count,
      algorithm: table.algorithm,
      backends: numbers,
      tableKey: table.key,
    });
  }

  function letGo(before: WrittenFrontend & { tableKey: string }): void {
    if (before.row.algorithm !== before.algorithm) withoutTable--;
    dropTable(before.tableKey);
    for (const number of before.backends) dropBackend(number);
  }

  function remove(row: FrontendRow): void {
    const before = written.get(row.key);
    maps.services.delete(serviceKey(row));
    if (before === undefined) return;
    for (const cidr of before.row.sourceRanges ?? []) maps.sourceRanges.delete(sourceRangeKey(before.id, cidr));
    for (const backend of directBackendsOf(before.row))
      if (backend !== undefined) maps.directBackends.delete(directKey(before.id, before.row, backend));
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
        const text = isMapFull(error)
          ? `the map is full (${maps.services.maxEntries} frontends)`
          : (error as Error).message;
        failures.push({ key: row.key, error: text });
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
      for (const text of leftDirect) maps.directBackends.delete(keyBytesOf(text));
      for (const { first, count } of leftRanges.values()) ranges.release(first, count);
      for (const number of leftBackends.values()) {
        const offset = number * maps.backends.strideBytes;
        maps.backends.bytes.fill(0, offset, offset + maps.backends.strideBytes);
        usedNumbers.delete(number);
        restingNumbers.push({ number, untilMs: nowMs() + restMs });
        gone.push(number);
      }
      leftServices.clear();
      leftRanges.clear();
      leftSourceRanges.clear();
      leftDirect.clear();
      leftBackends.clear();
    },
    get: (key) => written.get(key),
    byId: (id) => written.get(byId.get(id) ?? ''),
    backendByNumber(number) {
      const slot = backends.get(byNumber.get(number) ?? '');
      return slot && { owner: slot.owner, backend: slot.backend };
    },
    takeGone: () => gone.splice(0),
    pressure: () => ({
      frontends: { used: written.size, capacity: maps.services.maxEntries },
      backends: { used: backends.size, capacity: backendCapacity - 1 },
      slots: { used: ranges.used, capacity: ranges.capacity },
      withoutTable,
    }),
  };
}

/** The numbers in the order of their slots. */
function slotsOf(
  algorithm: FrontendRow['algorithm'],
  serving: readonly { backend: FrontendBackend; number: number }[],
): Uint32Array {
  if (algorithm === 'random') {
    const divisor = serving.map((each) => each.backend.weight).reduce(greatestCommonDivisor);
    return Uint32Array.from(serving.flatMap((each) => Array<number>(each.backend.weight / divisor).fill(each.number)));
  }
  const named = serving.map(({ backend }) => ({ name: `${backend.address} ${backend.port}`, weight: backend.weight }));
  return maglevTable(named, maglevSize(named.length)).map((index) => serving[index]!.number);
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}

/** What a backend's number stands for: one address and port behind one port of one Service. */
function backendName(row: FrontendRow, backend: FrontendBackend): string {
  return `${row.service}:${row.portName} ${backend.address} ${backend.port}/${row.protocol}`;
}

function serviceKey(row: FrontendRow): Uint8Array {
  return datapathMaps.services.key.encode({
    addr: addressBytes(row.address),
    port: row.port,
    protocol: protocolNumbers[row.protocol],
    scope: row.scope === 'inside' ? ServiceScope.SCOPE_INSIDE : ServiceScope.SCOPE_OUTSIDE,
  });
}

/** In the row's order, undefined for those that other nodes may not name. */
function directBackendsOf(row: FrontendRow): (FrontendBackend | undefined)[] {
  if (!row.directReturn) return [];
  return row.backends.map((backend) => (backend.where === 'pod' ? backend : undefined));
}

function directKey(service: number, row: FrontendRow, backend: FrontendBackend): Uint8Array {
  return datapathMaps.direct_backends.key.encode({
    addr: addressBytes(backend.address),
    service,
    port: backend.port,
    protocol: protocolNumbers[row.protocol],
  });
}

function sourceRangeKey(service: number, cidr: string): Uint8Array {
  const { prefixlen, addr } = blockKey(cidr);
  return datapathMaps.source_ranges.key.encode({ prefixlen: 32 + prefixlen, service, addr });
}

const keyText = (key: Uint8Array) => Buffer.from(key.buffer, key.byteOffset, key.length).toString('latin1');
const keyBytesOf = (text: string) => Uint8Array.from(Buffer.from(text, 'latin1'));
