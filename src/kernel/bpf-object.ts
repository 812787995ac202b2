// Loads a compiled BPF object: constants set, maps adopted from their pins when they fit, programs verified.
// libbpf does the loading and is let go of at once: what is returned owns descriptors only.
import { mkdirSync, renameSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { BpfMap, openPinnedMap } from './bpf-map.ts';
import { describeMismatch } from './bpf-map-layout.ts';
import { type ProgramInfo, programInfo } from './bpf-program.ts';
import { type Btf, btfSection, btfType, parseBtf, underlyingType } from './btf.ts';
import { isErrno, KernelError } from './kernel-error.ts';
import { libbpf, objectLoadAsync, withLibbpfMessages } from './libbpf.ts';
import { closeFd, copyFromAddress, copyToAddress, dupFd } from './libc.ts';
import { summarizeVerifierLog } from './verifier-log.ts';

export type LoadedProgram = ProgramInfo & { fd: number; section: string };

export type LoadedObject = {
  maps: ReadonlyMap<string, BpfMap>;
  programs: ReadonlyMap<string, LoadedProgram>;
  /** Maps that were there already, pinned, and were taken over with their contents. */
  adopted: readonly string[];
  /** Pinned maps that did not fit and were replaced by empty ones, and why. */
  replaced: readonly { map: string; why: string }[];
  /** The map with this name; throws when the object has none. */
  map(name: string): BpfMap;
  /** The program with this name; throws when the object has none. */
  program(name: string): LoadedProgram;
  /** Closes all descriptors. What is pinned or attached stays in the kernel. */
  close(): void;
  [Symbol.dispose](): void;
};

export type LoadOptions = {
  path: string;
  /** Directory on bpffs for the maps, made when missing. Without it nothing is pinned or adopted. */
  pinDir?: string;
  /** Values of `const volatile` variables; undefined leaves what the C source says. */
  constants?: Record<string, number | bigint | boolean | undefined>;
  /** Sizes of maps that differ from those in the C source. */
  maxEntries?: Record<string, number>;
  /** Load these programs only; all when left out. */
  programs?: readonly string[];
  /** Descriptors of maps to use instead of making new ones. */
  reuse?: Record<string, BpfMap>;
};

const logBytes = 16 * 1024 * 1024;

/** Loads an object. Throws KernelError with the verifier's complaint when a program is refused. */
export function loadObject(options: LoadOptions): LoadedObject {
  return withLibbpfMessages((messages) => {
    const object = libbpf.objectOpen(options.path, null);
    if (object === 0) throw loadError('open', options.path, messages);
    try {
      const prepared = prepare(object, options);
      const log = new Uint8Array(logBytes); // untouched pages cost nothing
      for (const { address } of prepared.programs) libbpf.programSetLogBuffer(address, log, log.length);
      const result = libbpf.objectLoad(object);
      if (result < 0) {
        const refused = prepared.programs.find(({ name }) =>
          messages.some((m) => m.includes(`prog '${name}': BPF program load`)),
        );
        throw loadError(refused ? `load program ${refused.name} of` : 'load', options.path, messages, -result, log);
      }
      return takeOver(prepared, options);
    } finally {
      libbpf.objectClose(object);
    }
  });
}

/** Loads under way on threads of the pool. */
const underWay = new Set<Promise<unknown>>();

/**
 * Loads objects that share pinned maps, side by side on threads of the pool, and answers with them in the same order. One
 * that has to make maps is waited for by those after it, which adopt them. Each rejects as loadObject() throws; those that
 * waited for one that failed reject with it.
 */
export function loadObjects(all: readonly LoadOptions[]): Promise<LoadedObject>[] {
  let turn: Promise<unknown> = Promise.resolve();
  return all.map((options) => {
    const begun = turn.then(() => begin(options));
    turn = begun.then(({ makesMaps, loaded }) => (makesMaps ? loaded : undefined));
    turn.catch(() => {}); // whoever waits for the object is told
    return begun.then(({ loaded }) => loaded);
  });
}

function begin(options: LoadOptions): { makesMaps: boolean; loaded: Promise<LoadedObject> } {
  const object = libbpf.objectOpen(options.path, null);
  if (object === 0) return { makesMaps: true, loaded: loadAgain(options) };
  try {
    const prepared = prepare(object, options);
    const load = objectLoadAsync(object);
    underWay.add(load);
    const loaded = load
      .finally(() => underWay.delete(load))
      .then((result) => {
        try {
          return result < 0 ? undefined : takeOver(prepared, options);
        } finally {
          libbpf.objectClose(object);
        }
      })
      .then((taken) => taken ?? loadAgain(options));
    return { makesMaps: prepared.toPin.size > 0, loaded };
  } catch (error) {
    libbpf.objectClose(object);
    throw error;
  }
}

/** On this thread, for the reason: libbpf's messages can only be collected here, when no thread loads. */
async function loadAgain(options: LoadOptions): Promise<LoadedObject> {
  while (underWay.size > 0) await Promise.allSettled(underWay);
  return loadObject(options);
}

/** An object that has been opened, with its constants, sizes and maps chosen. */
type Prepared = {
  own: Named[];
  programs: Named[];
  adopted: string[];
  replaced: { map: string; why: string }[];
  toPin: Set<string>;
};

function prepare(object: number, options: LoadOptions): Prepared {
  const btf = objectBtf(object);
  const maps = walk(libbpf.nextMap, object).map((address) => ({ address, name: libbpf.mapName(address) }));
  const programs = walk(libbpf.nextProgram, object).map((address) => ({ address, name: libbpf.programName(address) }));
  const own = maps.filter(({ address }) => !libbpf.mapIsInternal(address));

  resizeMaps(own, options.maxEntries ?? {}, options.path);
  const rodata = maps.find(({ address, name }) => libbpf.mapIsInternal(address) && name.endsWith('.rodata'));
  setConstants(btf, rodata?.address, options.constants ?? {}, options.path);
  for (const { address, name } of programs)
    if (options.programs && !options.programs.includes(name)) libbpf.programSetAutoload(address, false);
  return { own, programs, ...adoptPinned(own, btf, options) };
}

/** Takes what was loaded into descriptors of our own, and pins the maps that are new. */
function takeOver({ own, programs, adopted, replaced, toPin }: Prepared, options: LoadOptions): LoadedObject {
  const opened: { close(): void }[] = [];
  try {
    const mapHandles = new Map<string, BpfMap>();
    for (const { address, name } of own) {
      const map = new BpfMap(dupFd(libbpf.mapFd(address)));
      opened.push(map);
      mapHandles.set(name, map);
      if (toPin.has(name)) pinOver(map, join(options.pinDir!, name));
    }
    const programHandles = new Map<string, LoadedProgram>();
    for (const { address, name } of programs) {
      if (libbpf.programFd(address) < 0) continue;
      const fd = dupFd(libbpf.programFd(address));
      opened.push({ close: () => closeFd(fd) });
      programHandles.set(name, { ...programInfo(fd), name, fd, section: libbpf.programSection(address) });
    }
    return handle(options.path, mapHandles, programHandles, adopted, replaced, opened);
  } catch (error) {
    for (const item of opened) item.close();
    throw error;
  }
}

function handle(
  path: string,
  maps: Map<string, BpfMap>,
  programs: Map<string, LoadedProgram>,
  adopted: string[],
  replaced: { map: string; why: string }[],
  opened: { close(): void }[],
): LoadedObject {
  const find = <T>(from: Map<string, T>, kind: string, name: string): T => {
    const found = from.get(name);
    if (!found) throw new Error(`${basename(path)} has no ${kind} ${name}; it has ${[...from.keys()].join(', ')}`);
    return found;
  };
  const close = (): void => {
    for (const item of opened.splice(0)) item.close();
  };
  return {
    maps,
    programs,
    adopted,
    replaced,
    map: (name) => find(maps, 'map', name),
    program: (name) => find(programs, 'program', name),
    close,
    [Symbol.dispose]: close,
  };
}

type Named = { address: number; name: string };

function walk(next: (object: number, previous: number) => number, object: number): number[] {
  const found: number[] = [];
  for (let item = next(object, 0); item !== 0; item = next(object, item)) found.push(item);
  return found;
}

function objectBtf(object: number): Btf | undefined {
  const btf = libbpf.objectBtf(object);
  if (btf === 0) return undefined;
  const size = new Uint8Array(4);
  const address = libbpf.btfRawData(btf, size);
  return parseBtf(copyFromAddress(BigInt(address), new DataView(size.buffer).getUint32(0, true)));
}

function resizeMaps(maps: Named[], sizes: Record<string, number>, path: string): void {
  for (const [name, count] of Object.entries(sizes)) {
    const map = maps.find((candidate) => candidate.name === name);
    if (!map) throw new RangeError(`${basename(path)} has no map ${name} to resize`);
    const result = libbpf.mapSetMaxEntries(map.address, count);
    if (result < 0) throw new KernelError('bpf_map__set_max_entries', -result, `${name} to ${count}`);
  }
}

function setConstants(
  btf: Btf | undefined,
  rodata: number | undefined,
  constants: Record<string, number | bigint | boolean | undefined>,
  path: string,
): void {
  const names = Object.keys(constants).filter((name) => constants[name] !== undefined);
  if (names.length === 0) return;
  if (!btf || rodata === undefined) throw new RangeError(`${basename(path)} has no constants to set`);
  const size = new Uint8Array(8);
  const base = libbpf.mapInitialValue(rodata, size);
  const known = new Map<string, { offset: number; typeId: number }>();
  for (const variable of btfSection(btf, '.rodata')?.variables ?? []) {
    const type = btfType(btf, variable.typeId);
    if (type.kind === 'var') known.set(type.name, { offset: variable.offset, typeId: type.typeId });
  }
  for (const name of names) {
    const variable = known.get(name);
    if (!variable) {
      throw new RangeError(`${basename(path)} has no constant ${name}; it has ${[...known.keys()].join(', ')}`);
    }
    const bytes = encodeConstant(btf, variable.typeId, name, constants[name]!);
    copyToAddress(BigInt(base + variable.offset), bytes);
  }
}

function encodeConstant(btf: Btf, typeId: number, name: string, value: number | bigint | boolean): Uint8Array {
  const type = underlyingType(btf, typeId);
  if (type.kind !== 'int' && type.kind !== 'enum')
    throw new RangeError(`constant ${name} is a ${type.kind}, not a number`);
  if (typeof value === 'number' && !Number.isSafeInteger(value))
    throw new RangeError(`constant ${name}: ${value} is not an integer`);
  const number = BigInt(value);
  const bits = BigInt(type.size * 8);
  const [low, high] = type.signed ? [-(1n << (bits - 1n)), (1n << (bits - 1n)) - 1n] : [0n, (1n << bits) - 1n];
  if (number < low || number > high) throw new RangeError(`constant ${name}: ${value} is outside ${low}..${high}`);
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(64, number), true);
  return bytes.subarray(0, type.size);
}

function adoptPinned(
  maps: Named[],
  btf: Btf | undefined,
  options: LoadOptions,
): { adopted: string[]; replaced: { map: string; why: string }[]; toPin: Set<string> } {
  const adopted: string[] = [];
  const replaced: { map: string; why: string }[] = [];
  const toPin = new Set<string>();
  if (options.pinDir) mkdirSync(options.pinDir, { recursive: true, mode: 0o700 });
  for (const { address, name } of maps) {
    libbpf.mapSetPinPath(address, null); // where maps are pinned is decided here, not in the C source
    const given = options.reuse?.[name];
    if (given) {
      reuse(address, given);
      continue;
    }
    if (!options.pinDir) continue;
    const path = join(options.pinDir, name);
    const pinned = tryOpenPinned(path);
    if (pinned === undefined) {
      toPin.add(name);
      continue;
    }
    using map = pinned;
    const why = describeMismatch(map, address, name, btf);
    if (why === undefined) {
      reuse(address, map);
      adopted.push(name);
    } else {
      replaced.push({ map: name, why });
      toPin.add(name);
    }
  }
  return { adopted, replaced, toPin };
}

/** Takes a pin's place in one step, and only now that the object has loaded: a failed load leaves the old map pinned. */
function pinOver(map: BpfMap, path: string): void {
  const staging = `${path}_new`; // bpffs forbids dots in names
  rmSync(staging, { force: true });
  map.pin(staging);
  renameSync(staging, path);
}

function reuse(address: number, map: BpfMap): void {
  const result = libbpf.mapReuseFd(address, map.fd);
  if (result < 0) throw new KernelError('bpf_map__reuse_fd', -result, map.name);
}

function tryOpenPinned(path: string): BpfMap | undefined {
  try {
    return openPinnedMap(path);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}

function loadError(what: string, path: string, messages: readonly string[], errno = 22, log?: Uint8Array): KernelError {
  const text = log ? new TextDecoder().decode(log.subarray(0, Math.max(log.indexOf(0), 0))) : '';
  if (text === '') {
    const said = messages.slice(-4).map((message) => message.replace(/^libbpf: /, ''));
    return new KernelError('libbpf', errno, `cannot ${what} ${basename(path)}: ${said.join('; ')}`);
  }
  const complaint = summarizeVerifierLog(text);
  const source = complaint.sourceLine ? `\n  at: ${complaint.sourceLine}` : '';
  const tail = complaint.tail.map((line) => `\n    ${line}`).join('');
  const detail = `cannot ${what} ${basename(path)}: ${complaint.reason}${source}\n  the log ends with:${tail}`;
  return new KernelError('bpf(PROG_LOAD)', errno, detail);
}
