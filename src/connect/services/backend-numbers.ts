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
  /** "namespace/name" */
  readonly service: string;
  readonly portName: string;
  readonly protocol: PortProtocol;
  readonly backend: FrontendBackend;
}

/** The one writer of the map `backends`. */
export interface BackendNumbers {
  /** The numbers of a frontend's backends, in its order; each is used once more. Undefined when there are none left. */
  use(row: FrontendRow): readonly number[] | undefined;
  /** Takes back a `use` of the same row. */
  drop(row: FrontendRow, numbers: readonly number[]): void;
  get(number: number): NumberedBackend | undefined;
  /** Connections that were handed to it, since it has the number. */
  connections(number: number): number;
  /** Forgets what an earlier run left and nobody has taken over. */
  prune(): void;
  takeGone(): GoneBackend[];
  readonly used: number;
  readonly capacity: number;
}

/** One port of one Service, and the numbers behind it, sorted by address and port. */
interface ServicePortNumbers {
  readonly key: string;
  readonly service: string;
  readonly portName: string;
  readonly protocol: PortProtocol;
  /** Never changed, only replaced: frontends that have all of them keep the list, too. */
  numbers: readonly number[];
}

const scanElements = 8192;
const { BACKEND_USED, BACKEND_SERVING, BACKEND_LOCAL, BACKEND_NODE } = BackendFlags;
const countBytes = 4;
const noCount = new Uint8Array(countBytes);
const oneByte = new Uint8Array(1);
const noFlagsNorGeneration = new Uint8Array(5);

/** Takes the array over as it is. There may be hundreds of thousands: what is known of a number lies in arrays by number. */
export function createBackendNumbers(options: {
  readonly memory: ArrayMemory;
  readonly counts: ArrayMemory;
  readonly restMs: number;
  readonly nowMs: () => number;
}): BackendNumbers {
  const { memory, counts, restMs, nowMs } = options;
  const stride = memory.strideBytes;
  const capacity = memory.lenBytes / stride;
  const ports = new Map<string, ServicePortNumbers>();
  const portOf: (ServicePortNumbers | undefined)[] = [undefined];
  const backendOf: (FrontendBackend | undefined)[] = [undefined];
  const flagsOf = new Uint8Array(capacity);
  const usersOf = new Uint16Array(capacity);
  /** Frontends where it gets new connections. */
  const servingUsersOf = new Uint16Array(capacity);
  const left = leftBackends(memory);
  /** Numbers of an earlier run: not to be given away by counting on. */
  const taken = new Set<number>(left.values());
  /** What an earlier run left serving goes on so until every frontend has been written. */
  const leftServing = new Set<number>();
  const resting: { number: number; untilMs: number }[] = [];
  const gone: GoneBackend[] = [];
  let nextNumber = 1;
  let used = 0;

  function takeNumber(): number | undefined {
    if (resting.length > 0 && resting[0]!.untilMs <= nowMs()) return resting.shift()!.number;
    while (taken.delete(nextNumber)) nextNumber++;
    return nextNumber < capacity ? nextNumber++ : undefined;
  }

  function portOfRow(row: FrontendRow): ServicePortNumbers {
    const key = `${row.service}:${row.portName}/${row.protocol}`;
    let port = ports.get(key);
    if (port === undefined) {
      port = { key, service: row.service, portName: row.portName, protocol: row.protocol, numbers: [] };
      ports.set(key, port);
    }
    return port;
  }

  /** Those beyond the array's end are not counted. */
  const hasCount = (number: number) => (number + 1) * countBytes <= counts.lenBytes;

  /** The index at which a backend is, or should be. */
  function indexOf(port: ServicePortNumbers, backend: FrontendBackend): number {
    let low = 0;
    let high = port.numbers.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (isBefore(backendOf[port.numbers[middle]!]!, backend)) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  function add(port: ServicePortNumbers, index: number, backend: FrontendBackend): number | undefined {
    const generation = hash32(`${port.key} ${backend.address} ${backend.port}`, 1) || 1;
    const value = datapathMaps.backends.value.encode({
      addr: addressBytes(backend.address),
      port: backend.port,
      protocol: protocolNumbers[port.protocol],
      flags: 0,
      generation,
    });
    const known = left.size === 0 ? undefined : left.get(leftKey(value));
    const number = known ?? takeNumber();
    if (number === undefined) return undefined;
    const offset = number * stride;
    if (known === undefined) {
      if (hasCount(number)) counts.write(number * countBytes, noCount);
      memory.write(offset, value);
    } else left.delete(leftKey(value));
    const flags = known === undefined ? 0 : memory.read(offset + BackendOffset.flags, 1)[0]!;
    if (flags & BACKEND_SERVING) leftServing.add(number);
    flagsOf[number] = flags;
    portOf[number] = port;
    backendOf[number] = backend;
    port.numbers = port.numbers.toSpliced(index, 0, number);
    used++;
    return number;
  }

  /** Flags come last and go first: a row that says USED is whole. */
  function writeFlags(number: number): void {
    const { where } = backendOf[number]!.role;
    const flags =
      BACKEND_USED |
      (servingUsersOf[number]! > 0 || leftServing.has(number) ? BACKEND_SERVING : 0) |
      (where === 'pod' ? BACKEND_LOCAL : where === 'node' ? BACKEND_NODE : 0);
    if (flags === flagsOf[number]) return;
    flagsOf[number] = flags;
    oneByte[0] = flags;
    memory.write(number * stride + BackendOffset.flags, oneByte);
  }

  function free(number: number): void {
    const row = datapathMaps.backends.value.decode(memory.read(number * stride, stride));
    const protocol = row.protocol === 6 ? 'TCP' : row.protocol === 17 ? 'UDP' : 'SCTP';
    gone.push({ number, generation: row.generation, protocol, address: addressText(row.addr), port: row.port });
    memory.write(number * stride + BackendOffset.flags, noFlagsNorGeneration);
    resting.push({ number, untilMs: nowMs() + restMs });
  }

  function forget(number: number): void {
    const port = portOf[number]!;
    port.numbers = port.numbers.filter((each) => each !== number);
    if (port.numbers.length === 0) ports.delete(port.key);
    portOf[number] = undefined;
    backendOf[number] = undefined;
    flagsOf[number] = 0;
    leftServing.delete(number);
    used--;
    free(number);
  }

  function use(row: FrontendRow): readonly number[] | undefined {
    if (row.backends.length === 0) return [];
    const port = portOfRow(row);
    const numbers: number[] = [];
    for (const backend of row.backends) {
      const index = indexOf(port, backend);
      const at = port.numbers[index];
      const known = at !== undefined && !isBefore(backend, backendOf[at]!) ? at : undefined;
      const number = known ?? add(port, index, backend);
      if (number === undefined) {
        drop(row, numbers);
        if (port.numbers.length === 0) ports.delete(port.key);
        return undefined;
      }
      usersOf[number] = usersOf[number]! + 1;
      if (takesNew(backend)) servingUsersOf[number] = servingUsersOf[number]! + 1;
      backendOf[number] = backend;
      writeFlags(number);
      numbers.push(number);
    }
    // Both are sorted.
    return numbers.length === port.numbers.length ? port.numbers : [...numbers];
  }

  function drop(row: FrontendRow, numbers: readonly number[]): void {
    for (const [i, number] of numbers.entries()) {
      usersOf[number] = usersOf[number]! - 1;
      if (takesNew(row.backends[i]!)) servingUsersOf[number] = servingUsersOf[number]! - 1;
      if (usersOf[number]! > 0) writeFlags(number);
      else forget(number);
    }
  }

  return {
    use,
    drop,
    get(number) {
      const port = portOf[number];
      const backend = backendOf[number];
      if (port === undefined || backend === undefined) return undefined;
      return { number, service: port.service, portName: port.portName, protocol: port.protocol, backend };
    },
    connections(number) {
      if (!hasCount(number)) return 0;
      return new DataView(counts.peek(number * countBytes, countBytes).buffer).getUint32(0, true);
    },
    prune() {
      for (const number of left.values()) free(number);
      left.clear();
      const serving = [...leftServing];
      leftServing.clear();
      for (const number of serving) writeFlags(number);
    },
    takeGone: () => gone.splice(0),
    get used() {
      return used;
    },
    capacity: capacity - 1,
  };
}

/** Whether new connections may go there; weight 0 keeps what it has. */
export function takesNew(backend: FrontendBackend): boolean {
  return backend.role.state === 'serving' && backend.role.weight > 0;
}

function isBefore(a: FrontendBackend, b: FrontendBackend): boolean {
  return a.address === b.address ? a.port < b.port : a.address < b.address;
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
