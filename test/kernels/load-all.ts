// Has the kernel verify every program, and says which it refuses and why.
import { globSync } from 'node:fs';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { loadObject } from '../../src/kernel/bpf-object.ts';

const folder = fileURLToPath(new URL('../../build/bpf', import.meta.url));
for (const path of globSync(`${folder}/*.bpf.o`).sort()) {
  const started = performance.now();
  try {
    using object = loadObject({ path });
    const verified = [...object.programs].map(([name, { verifiedInsns }]) => `${name} ${verifiedInsns}`);
    console.log(`${basename(path)}: ${verified.join(', ')} (${Math.round(performance.now() - started)} ms)`);
  } catch (error) {
    console.log(`${basename(path)}: ${(error as Error).message}`);
    process.exitCode = 1;
  }
}
