// Decides whether a pinned map can be taken over: same kind, same sizes, and the same fields at the same places.
import type { BpfMap } from './bpf-map.ts';
import { BpfAttr, bpf, objectInfo } from './bpf-syscall.ts';
import { type Btf, btfLayout, btfSection, btfType, parseBtf, underlyingType } from './btf.ts';
import { libbpf } from './libbpf.ts';
import { closeFd } from './libc.ts';

/** Why `pinned` cannot serve as the map that the object declares; undefined when it can. */
export function describeMismatch(
  pinned: BpfMap,
  declared: number,
  name: string,
  btf: Btf | undefined,
): string | undefined {
  const facts: [string, number, number][] = [
    ['type', pinned.type, libbpf.mapType(declared)],
    ['key size', pinned.keySize, libbpf.mapKeySize(declared)],
    ['value size', pinned.valueSize, libbpf.mapValueSize(declared)],
    ['max_entries', pinned.maxEntries, libbpf.mapMaxEntries(declared)],
    ['flags', pinned.flags, libbpf.mapFlags(declared)],
  ];
  for (const [what, was, wanted] of facts) if (was !== wanted) return `${what} is ${was}, wanted ${wanted}`;
  const wanted = btf && declaredLayouts(btf, name);
  const was = pinnedLayouts(pinned);
  // Maps made without type information are trusted by their sizes alone.
  if (!wanted || !was) return undefined;
  if (wanted.key !== was.key) return 'the fields of the key have changed';
  if (wanted.value !== was.value) return 'the fields of the value have changed';
  return undefined;
}

type Layouts = { key: string; value: string };

/** The key and value types that a map declares in section .maps, by BTF id. */
export function declaredMapTypes(
  btf: Btf,
  name: string,
): { keyTypeId: number | undefined; valueTypeId: number | undefined } | undefined {
  for (const { typeId } of btfSection(btf, '.maps')?.variables ?? []) {
    const variable = btfType(btf, typeId);
    if (variable.kind !== 'var' || variable.name !== name) continue;
    const definition = underlyingType(btf, variable.typeId);
    if (definition.kind !== 'struct') return undefined;
    const pointee = (field: string): number | undefined => {
      const member = definition.members.find((candidate) => candidate.name === field);
      const type = member && underlyingType(btf, member.typeId);
      return type?.kind === 'pointer' ? type.typeId : undefined;
    };
    return { keyTypeId: pointee('key'), valueTypeId: pointee('value') };
  }
  return undefined;
}

function declaredLayouts(btf: Btf, name: string): Layouts | undefined {
  const types = declaredMapTypes(btf, name);
  if (types?.keyTypeId === undefined || types.valueTypeId === undefined) return undefined;
  return { key: btfLayout(btf, types.keyTypeId), value: btfLayout(btf, types.valueTypeId) };
}

function pinnedLayouts(map: BpfMap): Layouts | undefined {
  const info = objectInfo(map.fd, 88);
  const [btfId, keyId, valueId] = [info.readU32(64), info.readU32(68), info.readU32(72)];
  if (btfId === 0 || keyId === 0 || valueId === 0) return undefined;
  const btf = loadedBtf(btfId);
  return { key: btfLayout(btf, keyId), value: btfLayout(btf, valueId) };
}

const BTF_GET_FD_BY_ID = 19;

function loadedBtf(id: number): Btf {
  const fd = bpf(BTF_GET_FD_BY_ID, new BpfAttr(12).u32(0, id), 'BTF_GET_FD_BY_ID', `BTF ${id}`);
  try {
    const size = objectInfo(fd, 32).readU32(8);
    const bytes = new Uint8Array(size);
    objectInfo(fd, 32, new BpfAttr(32).pointer(0, bytes).u32(8, size));
    return parseBtf(bytes);
  } finally {
    closeFd(fd);
  }
}
