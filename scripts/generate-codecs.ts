// Writes typed codecs for the datapath's structs, maps, constants and drop reasons, from what the compiler recorded.
// usage: generate-codecs.ts --out FILE [--drop-reasons HEADER] OBJECT...
import { readFileSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { parseArgs } from 'node:util';
import { parseBtf } from '../src/kernel/btf.ts';
import { elfSection } from '../src/kernel/elf.ts';
import { collect, emptyModel } from './codec-model.ts';
import { codecText } from './codec-text.ts';
import { parseDropReasons } from './drop-reasons.ts';

/** The generated file for these objects. */
export function generateCodecs(objectPaths: readonly string[], dropReasonsHeader: string | undefined): string {
  const model = emptyModel();
  for (const path of [...objectPaths].sort()) {
    const section = elfSection(readFileSync(path), '.BTF');
    if (!section) throw new Error(`${path} has no .BTF section: compile it with -g`);
    collect(model, parseBtf(section), basename(path));
  }
  const reasons = dropReasonsHeader === undefined ? [] : parseDropReasons(readFileSync(dropReasonsHeader, 'utf8'));
  return codecText(model, reasons);
}

if (import.meta.main) {
  const { values, positionals } = parseArgs({
    options: { out: { type: 'string' }, 'drop-reasons': { type: 'string' } },
    allowPositionals: true,
  });
  if (!values.out || positionals.length === 0) {
    console.error('usage: generate-codecs.ts --out FILE [--drop-reasons HEADER] OBJECT...');
    process.exit(2);
  }
  const text = generateCodecs(positionals, values['drop-reasons']);
  // An unchanged file keeps its time, so that nothing is rebuilt for it.
  const before = tryRead(values.out);
  if (before !== text) writeFileSync(values.out, text);
}

function tryRead(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
