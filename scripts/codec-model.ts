// Collects from the BTF of compiled objects what user space needs: maps, the structs and enums they use, constants.
import { declaredMapTypes } from '../src/kernel/bpf-map-layout.ts';
import { type Btf, type BtfType, btfLayout, btfSection, btfSize, btfType, underlyingType } from '../src/kernel/btf.ts';

export type FieldType =
  | { kind: 'number'; size: 1 | 2 | 4; signed: boolean; bigEndian: boolean }
  | { kind: 'bigint'; signed: boolean; bigEndian: boolean }
  | { kind: 'bool' }
  | { kind: 'bytes'; length: number }
  | { kind: 'text'; length: number }
  | { kind: 'list'; element: FieldType; elementSize: number; length: number }
  | { kind: 'struct'; name: string; size: number };

export type StructModel = {
  name: string;
  size: number;
  layout: string;
  fields: { name: string; offset: number; type: FieldType }[];
};
export type EnumModel = { name: string; values: { name: string; value: number }[] };
export type MapModel = {
  name: string;
  type: number;
  maxEntries: number;
  flags: number;
  key: FieldType | undefined;
  value: FieldType | undefined;
};
export type ConstantModel = { name: string; size: number; signed: boolean; description: string };
export type Model = {
  maps: Map<string, MapModel>;
  structs: Map<string, StructModel>;
  enums: Map<string, EnumModel>;
  constants: Map<string, ConstantModel>;
};

const emitPrefix = '__emit_';

export function emptyModel(): Model {
  return { maps: new Map(), structs: new Map(), enums: new Map(), constants: new Map() };
}

/** Adds an object to the model. The same name must mean the same layout in every object. */
export function collect(model: Model, btf: Btf, objectName: string): void {
  for (const { typeId } of btfSection(btf, '.maps')?.variables ?? []) {
    const variable = btfType(btf, typeId);
    if (variable.kind === 'var') collectMap(model, btf, variable.name, variable.typeId, objectName);
  }
  btf.types.forEach((type, id) => {
    if (type.kind !== 'var') return;
    if (type.name.startsWith(emitPrefix)) collectEmitted(model, btf, type.typeId, objectName);
    else if (isConstant(btf, id)) addConstant(model, btf, type, id);
  });
}

function collectMap(model: Model, btf: Btf, name: string, typeId: number, objectName: string): void {
  const definition = underlyingType(btf, typeId);
  if (definition.kind !== 'struct') throw new Error(`${objectName}: map ${name} is not a struct`);
  const number = (field: string): number => {
    const member = definition.members.find((candidate) => candidate.name === field);
    if (!member) return 0;
    const pointer = underlyingType(btf, member.typeId);
    const array = pointer.kind === 'pointer' ? underlyingType(btf, pointer.typeId) : undefined;
    return array?.kind === 'array' ? array.length : 0;
  };
  const types = declaredMapTypes(btf, name);
  const field = (id: number | undefined): FieldType | undefined =>
    id === undefined ? undefined : fieldType(model, btf, id, `${objectName}: map ${name}`);
  const map: MapModel = {
    name,
    type: number('type'),
    maxEntries: number('max_entries'),
    flags: number('map_flags'),
    key: field(types?.keyTypeId),
    value: field(types?.valueTypeId),
  };
  const known = model.maps.get(name);
  if (known && JSON.stringify(known) !== JSON.stringify(map)) {
    throw new Error(`${objectName}: map ${name} differs from the one of the same name in another object`);
  }
  model.maps.set(name, map);
}

function collectEmitted(model: Model, btf: Btf, typeId: number, where: string): void {
  let type = underlyingType(btf, typeId);
  while (type.kind === 'pointer' || type.kind === 'array') {
    typeId = type.kind === 'pointer' ? type.typeId : type.elementId;
    type = underlyingType(btf, typeId);
  }
  fieldType(model, btf, typeId, where);
}

function fieldType(model: Model, btf: Btf, typeId: number, where: string): FieldType {
  const type = underlyingType(btf, typeId);
  switch (type.kind) {
    case 'int':
      if (type.bool) return { kind: 'bool' };
      return numberType(type.size, type.signed, isBigEndian(btf, typeId), where);
    case 'enum':
      addEnum(model, type);
      return numberType(type.size, type.signed, false, where);
    case 'array': {
      const element = underlyingType(btf, type.elementId);
      if (element.kind === 'int' && element.size === 1 && !element.bool) {
        return { kind: element.name === 'char' ? 'text' : 'bytes', length: type.length };
      }
      return {
        kind: 'list',
        element: fieldType(model, btf, type.elementId, where),
        elementSize: btfSize(btf, type.elementId),
        length: type.length,
      };
    }
    case 'struct':
      return addStruct(model, btf, typeId, type, where);
    default:
      throw new Error(`${where}: a ${type.kind} cannot be shared with user space`);
  }
}

function numberType(size: number, signed: boolean, bigEndian: boolean, where: string): FieldType {
  if (size === 8) return { kind: 'bigint', signed, bigEndian };
  if (size === 1 || size === 2 || size === 4) return { kind: 'number', size, signed, bigEndian };
  throw new Error(`${where}: an integer of ${size} bytes`);
}

function isBigEndian(btf: Btf, typeId: number): boolean {
  let type = btfType(btf, typeId);
  while (type.kind === 'typedef' || type.kind === 'modifier') {
    if (type.kind === 'typedef' && /^__be(16|32|64)$/.test(type.name)) return true;
    type = btfType(btf, type.typeId);
  }
  return false;
}

function addStruct(
  model: Model,
  btf: Btf,
  typeId: number,
  type: Extract<BtfType, { kind: 'struct' | 'union' }>,
  where: string,
): FieldType {
  if (type.name === '') throw new Error(`${where}: give the struct a name, so that its codec has one`);
  const layout = btfLayout(btf, typeId);
  const known = model.structs.get(type.name);
  if (known && known.layout !== layout) throw new Error(`${where}: struct ${type.name} differs between objects`);
  if (!known) {
    const fields = type.members.map((member) => {
      const path = `${where}: struct ${type.name}, field ${member.name || '(unnamed)'}`;
      if (member.name === '' || member.bitOffset % 8 !== 0) throw new Error(`${path}: unnamed or a bit field`);
      return { name: member.name, offset: member.bitOffset / 8, type: fieldType(model, btf, member.typeId, path) };
    });
    model.structs.set(type.name, { name: type.name, size: type.size, layout, fields });
  }
  return { kind: 'struct', name: type.name, size: type.size };
}

function addEnum(model: Model, type: Extract<BtfType, { kind: 'enum' }>): void {
  if (type.name === '') return;
  const values = type.values.map(({ name, value }) => ({ name, value: Number(value) }));
  const known = model.enums.get(type.name);
  if (known && JSON.stringify(known.values) !== JSON.stringify(values)) {
    throw new Error(`enum ${type.name} differs between objects`);
  }
  model.enums.set(type.name, { name: type.name, values });
}

function isConstant(btf: Btf, variableId: number): boolean {
  return btfSection(btf, '.rodata')?.variables.some(({ typeId }) => typeId === variableId) ?? false;
}

function addConstant(model: Model, btf: Btf, variable: Extract<BtfType, { kind: 'var' }>, variableId: number): void {
  const type = underlyingType(btf, variable.typeId);
  if (variable.linkage !== 1 || (type.kind !== 'int' && type.kind !== 'enum')) return;
  const description = btf.types
    .flatMap((tag) => (tag.kind === 'declTag' && tag.typeId === variableId ? [tag.text] : []))
    .join(' ');
  model.constants.set(variable.name, { name: variable.name, size: type.size, signed: type.signed, description });
}
