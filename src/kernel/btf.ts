// A reader of BTF, the type information inside compiled BPF objects (kernel: Documentation/bpf/btf.rst).
// Pure: bytes in, types out. Little-endian only, as every machine Weir supports.

export type BtfMember = { name: string; typeId: number; bitOffset: number };
export type BtfEnumerator = { name: string; value: number | bigint };
export type BtfVariable = { typeId: number; offset: number; size: number };

export type BtfType =
  | { kind: 'void' }
  | { kind: 'int'; name: string; size: number; signed: boolean; bool: boolean }
  | { kind: 'pointer'; typeId: number }
  | { kind: 'array'; elementId: number; length: number }
  | { kind: 'struct' | 'union'; name: string; size: number; members: BtfMember[] }
  | { kind: 'enum'; name: string; size: number; signed: boolean; values: BtfEnumerator[] }
  | { kind: 'typedef'; name: string; typeId: number }
  | { kind: 'modifier'; typeId: number }
  | { kind: 'var'; name: string; typeId: number; linkage: number }
  | { kind: 'section'; name: string; size: number; variables: BtfVariable[] }
  | { kind: 'declTag'; text: string; typeId: number; component: number }
  | { kind: 'other'; name: string };

/** Types by id; id 0 is void. */
export type Btf = { types: readonly BtfType[] };

const BTF_MAGIC = 0xeb9f;

/** Parses the contents of a .BTF section. Throws when they are not BTF. */
export function parseBtf(bytes: Uint8Array): Btf {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 24 || view.getUint16(0, true) !== BTF_MAGIC) throw new Error('not BTF: wrong magic number');
  const headerLength = view.getUint32(4, true);
  const typesStart = headerLength + view.getUint32(8, true);
  const typesEnd = typesStart + view.getUint32(12, true);
  const stringsStart = headerLength + view.getUint32(16, true);
  if (typesEnd > bytes.length || stringsStart > bytes.length) throw new Error('not BTF: truncated');
  const decoder = new TextDecoder();
  const text = (offset: number): string => {
    const start = stringsStart + offset;
    return decoder.decode(bytes.subarray(start, bytes.indexOf(0, start)));
  };

  const types: BtfType[] = [{ kind: 'void' }];
  let at = typesStart;
  const u32 = (offset: number): number => view.getUint32(offset, true);
  while (at < typesEnd) {
    const name = text(u32(at));
    const info = u32(at + 4);
    const sizeOrType = u32(at + 8);
    const count = info & 0xffff;
    const flag = info >>> 31 === 1;
    const body = at + 12;
    const kind = (info >>> 24) & 0x1f;
    const list = <T>(stride: number, read: (offset: number) => T): T[] => {
      at = body + count * stride;
      return Array.from({ length: count }, (_, i) => read(body + i * stride));
    };
    at = body;
    switch (kind) {
      case 1: {
        const encoding = (u32(body) >>> 24) & 0xf;
        types.push({ kind: 'int', name, size: sizeOrType, signed: (encoding & 1) !== 0, bool: (encoding & 4) !== 0 });
        at += 4;
        break;
      }
      case 2:
        types.push({ kind: 'pointer', typeId: sizeOrType });
        break;
      case 3:
        types.push({ kind: 'array', elementId: u32(body), length: u32(body + 8) });
        at += 12;
        break;
      case 4:
      case 5:
        types.push({
          kind: kind === 4 ? 'struct' : 'union',
          name,
          size: sizeOrType,
          members: list(12, (o) => ({
            name: text(u32(o)),
            typeId: u32(o + 4),
            bitOffset: flag ? u32(o + 8) & 0xffffff : u32(o + 8),
          })),
        });
        break;
      case 6:
        types.push({
          kind: 'enum',
          name,
          size: sizeOrType,
          signed: flag,
          values: list(8, (o) => ({ name: text(u32(o)), value: flag ? view.getInt32(o + 4, true) : u32(o + 4) })),
        });
        break;
      case 8:
        types.push({ kind: 'typedef', name, typeId: sizeOrType });
        break;
      case 9:
      case 10:
      case 11:
      case 18:
        types.push({ kind: 'modifier', typeId: sizeOrType });
        break;
      case 13:
        list(8, () => undefined);
        types.push({ kind: 'other', name });
        break;
      case 14:
        types.push({ kind: 'var', name, typeId: sizeOrType, linkage: u32(body) });
        at += 4;
        break;
      case 15:
        types.push({
          kind: 'section',
          name,
          size: sizeOrType,
          variables: list(12, (o) => ({ typeId: u32(o), offset: u32(o + 4), size: u32(o + 8) })),
        });
        break;
      case 17:
        types.push({ kind: 'declTag', text: name, typeId: sizeOrType, component: view.getInt32(body, true) });
        at += 4;
        break;
      case 19:
        types.push({
          kind: 'enum',
          name,
          size: sizeOrType,
          signed: flag,
          values: list(12, (o) => ({
            name: text(u32(o)),
            value: BigInt.asUintN(64, BigInt(u32(o + 4)) | (BigInt(u32(o + 8)) << 32n)),
          })),
        });
        break;
      case 7:
      case 12:
      case 16:
        types.push({ kind: 'other', name });
        break;
      default:
        throw new Error(`BTF kind ${kind} is not known`);
    }
  }
  return { types };
}

/** The type with this id; throws for an id that is not there. */
export function btfType(btf: Btf, typeId: number): BtfType {
  const type = btf.types[typeId];
  if (!type) throw new Error(`BTF has no type ${typeId}`);
  return type;
}

/** Strips typedefs and const/volatile/restrict. */
export function underlyingType(btf: Btf, typeId: number): Exclude<BtfType, { kind: 'typedef' | 'modifier' }> {
  let type = btfType(btf, typeId);
  while (type.kind === 'typedef' || type.kind === 'modifier') type = btfType(btf, type.typeId);
  return type;
}

/** Bytes that a value of this type takes. */
export function btfSize(btf: Btf, typeId: number): number {
  const type = underlyingType(btf, typeId);
  switch (type.kind) {
    case 'int':
    case 'struct':
    case 'union':
    case 'enum':
      return type.size;
    case 'pointer':
      return 8;
    case 'array':
      return type.length * btfSize(btf, type.elementId);
    default:
      throw new Error(`BTF ${type.kind} has no size`);
  }
}

/** The section (`.maps`, `.rodata`) with this name. */
export function btfSection(btf: Btf, name: string): Extract<BtfType, { kind: 'section' }> | undefined {
  for (const type of btf.types) if (type.kind === 'section' && type.name === name) return type;
  return undefined;
}

/** A text that is equal for two types exactly when their memory has the same layout and field names. */
export function btfLayout(btf: Btf, typeId: number): string {
  const type = underlyingType(btf, typeId);
  switch (type.kind) {
    case 'int':
      return `${type.signed ? 'i' : 'u'}${type.size * 8}`;
    case 'enum':
      return `u${type.size * 8}`;
    case 'array':
      return `${btfLayout(btf, type.elementId)}[${type.length}]`;
    case 'struct':
    case 'union': {
      const members = type.members.map((m) => `${m.name}@${m.bitOffset}:${btfLayout(btf, m.typeId)}`);
      return `${type.kind}(${type.size}){${members.join(',')}}`;
    }
    default:
      return type.kind;
  }
}
