// libbpf, bound once: the map calls of the hot path (0.5 µs each) and the loader of ELF objects.
// libbpf's calls return -errno (or NULL with errno set); callers turn that into KernelError.
import koffi from 'koffi';
import { WeirError } from '../core/errors.ts';

const library = loadLibrary();

function loadLibrary(): ReturnType<typeof koffi.load> {
  try {
    return koffi.load('libbpf.so.1');
  } catch (error) {
    const why = `libbpf.so.1 cannot be loaded: ${(error as Error).message}`;
    throw new WeirError(
      'KERNEL_UNSUPPORTED',
      why,
      'Install libbpf, version 1.1 or later (Debian: apt-get install libbpf1).',
    );
  }
}

type Address = number;

function bindCall<F>(name: string, result: string, parameters: string[]): F {
  return library.func(name, result, parameters) as unknown as F;
}

export const mapUpdateElem = bindCall<(fd: number, key: Uint8Array, value: Uint8Array, flags: number) => number>(
  'bpf_map_update_elem',
  'int',
  ['int', 'void *', 'void *', 'uint64'],
);
export const mapLookupElem = bindCall<(fd: number, key: Uint8Array, value: Uint8Array) => number>(
  'bpf_map_lookup_elem',
  'int',
  ['int', 'void *', 'void *'],
);
export const mapDeleteElem = bindCall<(fd: number, key: Uint8Array) => number>('bpf_map_delete_elem', 'int', [
  'int',
  'void *',
]);
export const mapNextKey = bindCall<(fd: number, key: Uint8Array | null, next: Uint8Array) => number>(
  'bpf_map_get_next_key',
  'int',
  ['int', 'void *', 'void *'],
);

/** The loader. Objects, maps and programs are addresses of libbpf's own structures. */
export const libbpf = {
  setPrint: bindCall<(callback: bigint | null) => void>('libbpf_set_print', 'void *', ['void *']),
  objectOpen: bindCall<(path: string, options: Uint8Array | null) => Address>('bpf_object__open_file', 'uintptr_t', [
    'str',
    'void *',
  ]),
  objectLoad: bindCall<(object: Address) => number>('bpf_object__load', 'int', ['uintptr_t']),
  objectClose: bindCall<(object: Address) => void>('bpf_object__close', 'void', ['uintptr_t']),
  objectBtf: bindCall<(object: Address) => Address>('bpf_object__btf', 'uintptr_t', ['uintptr_t']),
  btfRawData: bindCall<(btf: Address, size: Uint8Array) => Address>('btf__raw_data', 'uintptr_t', [
    'uintptr_t',
    'void *',
  ]),
  nextMap: bindCall<(object: Address, previous: Address) => Address>('bpf_object__next_map', 'uintptr_t', [
    'uintptr_t',
    'uintptr_t',
  ]),
  nextProgram: bindCall<(object: Address, previous: Address) => Address>('bpf_object__next_program', 'uintptr_t', [
    'uintptr_t',
    'uintptr_t',
  ]),
  mapName: bindCall<(map: Address) => string>('bpf_map__name', 'str', ['uintptr_t']),
  mapFd: bindCall<(map: Address) => number>('bpf_map__fd', 'int', ['uintptr_t']),
  mapType: bindCall<(map: Address) => number>('bpf_map__type', 'int', ['uintptr_t']),
  mapKeySize: bindCall<(map: Address) => number>('bpf_map__key_size', 'uint', ['uintptr_t']),
  mapValueSize: bindCall<(map: Address) => number>('bpf_map__value_size', 'uint', ['uintptr_t']),
  mapMaxEntries: bindCall<(map: Address) => number>('bpf_map__max_entries', 'uint', ['uintptr_t']),
  mapSetMaxEntries: bindCall<(map: Address, count: number) => number>('bpf_map__set_max_entries', 'int', [
    'uintptr_t',
    'uint',
  ]),
  mapFlags: bindCall<(map: Address) => number>('bpf_map__map_flags', 'uint', ['uintptr_t']),
  mapIsInternal: bindCall<(map: Address) => boolean>('bpf_map__is_internal', 'bool', ['uintptr_t']),
  mapInitialValue: bindCall<(map: Address, size: Uint8Array) => Address>('bpf_map__initial_value', 'uintptr_t', [
    'uintptr_t',
    'void *',
  ]),
  mapSetPinPath: bindCall<(map: Address, path: string | null) => number>('bpf_map__set_pin_path', 'int', [
    'uintptr_t',
    'str',
  ]),
  mapReuseFd: bindCall<(map: Address, fd: number) => number>('bpf_map__reuse_fd', 'int', ['uintptr_t', 'int']),
  programName: bindCall<(program: Address) => string>('bpf_program__name', 'str', ['uintptr_t']),
  programSection: bindCall<(program: Address) => string>('bpf_program__section_name', 'str', ['uintptr_t']),
  programFd: bindCall<(program: Address) => number>('bpf_program__fd', 'int', ['uintptr_t']),
  programType: bindCall<(program: Address) => number>('bpf_program__type', 'int', ['uintptr_t']),
  programSetAutoload: bindCall<(program: Address, autoload: boolean) => number>('bpf_program__set_autoload', 'int', [
    'uintptr_t',
    'bool',
  ]),
  programSetLogBuffer: bindCall<(program: Address, buffer: Uint8Array, size: number) => number>(
    'bpf_program__set_log_buf',
    'int',
    ['uintptr_t', 'void *', 'size_t'],
  ),
  programSetLogLevel: bindCall<(program: Address, level: number) => number>('bpf_program__set_log_level', 'int', [
    'uintptr_t',
    'uint',
  ]),
};

let loading = 0;

/** bpf_object__load() on a thread of the pool: this one goes on meanwhile. What libbpf has to say is not collected. */
export function objectLoadAsync(object: Address): Promise<number> {
  libbpf.setPrint(null);
  loading++;
  return new Promise((resolve, reject) => {
    const call = libbpf.objectLoad as unknown as { async: (object: Address, done: LoadDone) => void };
    call.async(object, (error, result) => {
      loading--;
      if (error) reject(error);
      else resolve(result);
    });
  });
}

type LoadDone = (error: Error | null, result: number) => void;

const printSignature = koffi.proto('int weir_libbpf_print(int level, const char *format, void *arguments)');
const libc = koffi.load('libc.so.6');
const vsnprintf = libc.func('vsnprintf', 'int', ['void *', 'size_t', 'str', 'void *']);

/**
 * Runs `action` with libbpf's warnings collected instead of printed; returns its result and the lines. While a thread
 * loads nothing is collected: libbpf would call into this one, which may not be there to answer.
 */
export function withLibbpfMessages<T>(action: (messages: readonly string[]) => T): T {
  const messages: string[] = [];
  if (loading > 0) return action(messages);
  const line = new Uint8Array(4096);
  const callback = koffi.register((level: number, format: string, args: unknown) => {
    if (level > 1) return 0;
    const length = Math.min(Number(vsnprintf(line, line.length, format, args)), line.length - 1);
    messages.push(new TextDecoder().decode(line.subarray(0, Math.max(length, 0))).trim());
    return 0;
  }, koffi.pointer(printSignature));
  libbpf.setPrint(callback);
  try {
    return action(messages);
  } finally {
    libbpf.setPrint(null);
    koffi.unregister(callback);
  }
}
