// Numbers of backends: one stands for an address and port behind one port of one Service, in all frontends of that port.
// A number that is free again rests before it is given to somebody else, and its generation says whose it was.
import { type FrontendBackend, type FrontendRow, type PortProtocol, protocolNumbers } from '../../core/rows.ts';
import { BackendFlags, BackendOffset, datapathMaps } from '../../kernel/datapath.gen.ts';
import type { ArrayMemory } from '../../kernel/mmap-array.ts';
import { addressBytes, addressText } from '../datapath/address-keys.ts';
import { hash32 } from './maglev.ts';
import { keyText } from './service-keys.ts';

/** A backend that was there and is not any more. */
export interface GoneBackend {
  readonly number: number;
  readonly generation: number;
  readonly address: string;
  readonly port: number;
  readonly protocol: PortProtocol;
}

/** A numbered backend. */
export interface NumberedBackend {
  readonly number: number;
  readonly generation: number;
  /** "namespace/name:port name" */
  readonly owner: string;
  readonly protocol: PortProtocol;
  readonly backend: FrontendBackend;
}

/** The one writer of the map `backends`. */
export interface BackendNumbers {
  /** The numbers of a frontend's backends, in its order; each is used once more. Undefined when there are none left. */
  use(row: FrontendRow): number[] | undefined;
  /** Takes back a `use` of the same row. */
  drop(row: FrontendRow, numbers: readonly number[]): void;
  get(number: number): NumberedBackend | undefined;
  /** Forgets what an earlier run left and nobody has taken over. */
  prune(): void;
  takeGone(): GoneBackend[];
  readonly used: number;
  readonly capacity: number;
}

interface Slot extends NumberedBackend {
  readonly name: string;
  backend: FrontendBackend;
  flags: number;
  users: number;
  /** Frontends where it gets new connections. */
  servingUsers: number;
  /** An earlier run left it so: it holds until every frontend has been written. */
  leftServing: boolean;
}

const scanElements = 8192;
const { BACKEND_USED, BACKEND_SERVING, BACKEND_LOCAL, BACKEND_NODE } = BackendFlags;
const noFlagsNorGeneration = new Uint8Array(5);

/** Takes the array over as it is. */
export function createBackendNumbers(options: {
  readonly memory: ArrayMemory;
  readonly restMs: number;
  readonly nowMs: () => number;
}): BackendNumbers {
  const { memory, restMs, nowMs } = options;
  const stride = memory.strideBytes;
  const capacity = memory.lenBytes / stride;
  const byName = new Map<string, Slot>();
  const byNumber: (Slot | undefined)[] = [];
  const left = leftBackends(memory);
  /** Those that cannot be given away by counting on: in use, resting, or left by an earlier run. */
  const taken = new Set<number>([0, ...left.values()]);
  const resting: { number: number; untilMs: number }[] = [];
  const gone: GoneBackend[] = [];
  const adopted: string[] = [];
  let nextNumber = 1;

  function takeNumber(): number | undefined {
    if (resting.length > 0 && resting[0]!.untilMs <= nowMs()) return resting.shift()!.number;
    while (nextNumber < capacity && taken.has(nextNumber)) nextNumber++;
    if (nextNumber >= capacity) return undefined;
    taken.add(nextNumber);
    return nextNumber++;
  }

  function add(name: string, row: FrontendRow, backend: FrontendBackend): Slot | undefined {
    const { protocol } = row;
    const generation = hash32(name, 1) || 1;
    const value = datapathMaps.backends.value.encode({
      addr: addressBytes(backend.address),
      port: backend.port,
      protocol: protocolNumbers[protocol],
      flags: 0,
      generation,
    });
    const known = left.get(leftKey(value));
    const number = known ?? takeNumber();
    if (number === undefined) return undefined;
    const offset = number * stride;
    if (known === undefined) memory.write(offset, value);
    else left.delete(leftKey(value));
    const flags = known === undefined ? 0 : memory.read(offset + BackendOffset.flags, 1)[0]!;
    const owner = `${row.service}:${row.portName}`;
    const leftServing = (flags & BACKEND_SERVING) !== 0;
    if (leftServing) adopted.push(name);
    const slot = { name, number, generation, owner, protocol, backend, flags, users: 0, servingUsers: 0, leftServing };
    byName.set(name, slot);
    byNumber[number] = slot;
    return slot;
  }

  /** Flags come last and go first: a row that says USED is whole. */
  function writeFlags(slot: Slot): void {
    const { where } = slot.backend;
    const flags =
      BACKEND_USED |
      (slot.servingUsers > 0 || slot.leftServing ? BACKEND_SERVING : 0) |
      (where === 'pod' ? BACKEND_LOCAL : where === 'node' ? BACKEND_NODE : 0);
    if (flags === slot.flags) return;
    slot.flags = flags;
    memory.write(slot.number * stride + BackendOffset.flags, Uint8Array.of(flags));
  }

  function free(number: number): void {
    memory.write(number * stride + BackendOffset.flags, noFlagsNorGeneration);
    resting.push({ number, untilMs: nowMs() + restMs });
  }

  function use(row: FrontendRow): number[] | undefined {
    const numbers: number[] = [];
    for (const backend of row.backends) {
      const name = `${row.service}:${row.portName} ${backend.address} ${backend.port}/${row.protocol}`;
      const slot = byName.get(name) ?? add(name, row, backend);
      if (slot === undefined) {
        drop(row, numbers);
        return undefined;
      }
      slot.users++;
      if (takesNew(backend)) slot.servingUsers++;
      slot.backend = backend;
      writeFlags(slot);
      numbers.push(slot.number);
    }
    return numbers;
  }

  function drop(row: FrontendRow, numbers: readonly number[]): void {
    for (const [i, number] of numbers.entries()) {
      const slot = byNumber[number]!;
      slot.users--;
      if (takesNew(row.backends[i]!)) slot.servingUsers--;
      if (slot.users > 0) {
        writeFlags(slot);
        continue;
      }
      byName.delete(slot.name);
      byNumber[number] = undefined;
      const { generation, protocol } = slot;
      gone.push({ number, generation, protocol, address: slot.backend.address, port: slot.backend.port });
      free(number);
    }
  }

  return {
    use,
    drop,
    get: (number) => byNumber[number],
    prune() {
      for (const number of left.values()) {
        const row = datapathMaps.backends.value.decode(memory.read(number * stride, stride));
        const protocol = row.protocol === 6 ? 'TCP' : row.protocol === 17 ? 'UDP' : 'SCTP';
        gone.push({ number, generation: row.generation, protocol, address: addressText(row.addr), port: row.port });
        free(number);
      }
      left.clear();
      for (const name of adopted.splice(0)) {
        const slot = byName.get(name);
        if (slot === undefined) continue;
        slot.leftServing = false;
        writeFlags(slot);
      }
    },
    takeGone: () => gone.splice(0),
    get used() {
      return byName.size;
    },
    capacity: capacity - 1,
  };
}

/** Whether new connections may go there; weight 0 keeps what it has. */
export function takesNew(backend: FrontendBackend): boolean {
  return backend.state === 'serving' && backend.weight > 0;
}

/** Who a row is, whatever its flags: two may have the same generation by chance. */
function leftKey(value: Uint8Array): string {
  return keyText(value.subarray(0, BackendOffset.flags)) + keyText(value.subarray(BackendOffset.generation, 24));
}

function leftBackends(memory: ArrayMemory): Map<string, number> {
  const found = new Map<string, number>();
  const stride = memory.strideBytes;
  for (let offset = 0; offset < memory.lenBytes; offset += scanElements * stride) {
    const bytes = memory.peek(offset, Math.min(scanElements * stride, memory.lenBytes - offset));
    for (let at = 0; at < bytes.length; at += stride) {
      const number = (offset + at) / stride;
      if (number === 0 || (bytes[at + BackendOffset.flags]! & BACKEND_USED) === 0) continue;
      found.set(leftKey(bytes.subarray(at, at + stride)), number);
    }
  }
  return found;
}
