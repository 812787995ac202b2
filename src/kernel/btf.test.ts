import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { btfLayout, btfSize, parseBtf } from './btf.ts';
import { elfSection } from './elf.ts';
import { bpfSkipReason, compileBpf } from './testdata/compile.ts';

const skip = bpfSkipReason();

test('parseBtf reads sizes and layouts that the compiler wrote', skip ? { skip } : {}, () => {
  const path = compileBpf(
    'types',
    `#include <linux/types.h>
     struct inner { __be16 port; __u8 pad[2]; };
     struct outer { __u64 a; struct inner b[2]; __s32 c; };
     enum color { RED = -1, BLUE = 2 };
     struct outer one; enum color *two;`,
  );
  const btf = parseBtf(elfSection(readFileSync(path), '.BTF')!);
  const outer = btf.types.findIndex((t) => t.kind === 'struct' && t.name === 'outer');
  assert.equal(btfSize(btf, outer), 24);
  assert.equal(btfLayout(btf, outer), 'struct(24){a@0:u64,b@64:struct(4){port@0:u16,pad@16:u8[2]}[2],c@128:i32}');
  const color = btf.types.find((t) => t.kind === 'enum');
  assert.deepEqual(color?.kind === 'enum' && color.values, [
    { name: 'RED', value: -1 },
    { name: 'BLUE', value: 2 },
  ]);
});

test('parseBtf refuses what is not BTF', () => {
  assert.throws(() => parseBtf(new Uint8Array(40)), /not BTF/);
  assert.throws(() => parseBtf(new Uint8Array(3)), /not BTF/);
});

test('elfSection refuses what is not ELF', () => {
  assert.throws(() => elfSection(new Uint8Array(100), '.BTF'), /not a 64-bit/);
});
