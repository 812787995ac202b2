// A BPF map whose keys and values are rows: a BpfMap together with the generated codecs of its spec.
import type { BpfMap } from './bpf-map.ts';
import type { MapSpec } from './codec.ts';

export type TypedMap<Key, Value> = {
  readonly map: BpfMap;
  update(key: Key, value: Value, flags?: number): void;
  lookup(key: Key): Value | undefined;
  /** One value per possible CPU; a single one when the map is not per CPU. */
  lookupPerCpu(key: Key): Value[] | undefined;
  delete(key: Key): boolean;
  /** Every row. Of per-CPU maps use `entriesPerCpu`. */
  entries(): { key: Key; value: Value }[];
  entriesPerCpu(): { key: Key; values: Value[] }[];
  updateBatch(rows: readonly { key: Key; value: Value }[]): number;
  deleteBatch(keys: readonly Key[]): number;
  close(): void;
};

/** Reads and writes `map` as the spec says; throws when the sizes of keys and values differ from it. */
export function typedMap<Key, Value>(map: BpfMap, spec: MapSpec<Key, Value>): TypedMap<Key, Value> {
  if (map.keySize !== spec.key.size || map.valueSize !== spec.value.size) {
    throw new RangeError(
      `map ${spec.name}: the kernel's has keys of ${map.keySize} and values of ${map.valueSize} bytes, ` +
        `the code ${spec.key.size} and ${spec.value.size}: it was compiled from another version`,
    );
  }
  const { key: keys, value: values } = spec;
  const decodeAll = (bytes: Uint8Array): Value[] => map.splitPerCpu(bytes).map((slot) => values.decode(slot));
  return {
    map,
    update: (key, value, flags) => map.update(keys.encode(key), values.encode(value), flags),
    lookup(key) {
      const bytes = map.lookup(keys.encode(key));
      return bytes && values.decode(bytes);
    },
    lookupPerCpu(key) {
      const bytes = map.lookup(keys.encode(key));
      return bytes && decodeAll(bytes);
    },
    delete: (key) => map.delete(keys.encode(key)),
    entries: () => map.entries().map(({ key, value }) => ({ key: keys.decode(key), value: values.decode(value) })),
    entriesPerCpu: () => map.entries().map(({ key, value }) => ({ key: keys.decode(key), values: decodeAll(value) })),
    updateBatch: (rows) =>
      map.updateBatch(rows.map(({ key, value }) => ({ key: keys.encode(key), value: values.encode(value) }))),
    deleteBatch: (list) => map.deleteBatch(list.map((key) => keys.encode(key))),
    close: () => map.close(),
  };
}
