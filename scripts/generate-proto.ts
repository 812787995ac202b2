// Generates proto/gen from the contracts in proto/ with protoc. `--check` only compares, and fails when they differ.
// JavaScript with declarations, because generated enums cannot run in TypeScript whose types are merely stripped.
import { execFileSync } from 'node:child_process';
import { globSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../', import.meta.url));
const contracts = join(root, 'proto');
const generated = join(contracts, 'gen');

/** Writes the code of all contracts into `folder`. */
function generateProto(folder: string): void {
  mkdirSync(folder, { recursive: true });
  const files = globSync('*/*.proto', { cwd: contracts }).sort();
  const path = [join(root, 'node_modules/.bin'), dirname(process.execPath), process.env.PATH].join(':');
  execFileSync(
    'protoc',
    ['--proto_path', contracts, '--es_out', folder, '--es_opt', 'target=js+dts,import_extension=js', ...files],
    {
      env: { ...process.env, PATH: path },
      stdio: ['ignore', 'inherit', 'inherit'],
    },
  );
}

/** The generated files that are not what the contracts say. */
export function staleProto(): string[] {
  const folder = mkdtempSync(join(tmpdir(), 'weir-proto-'));
  try {
    generateProto(folder);
    const texts = (at: string) =>
      new Map(globSync('*/*_pb.*', { cwd: at }).map((name) => [name, readFileSync(join(at, name), 'utf8')]));
    const want = texts(folder);
    const have = texts(generated);
    return [...new Set([...want.keys(), ...have.keys()])].filter((name) => want.get(name) !== have.get(name)).sort();
  } finally {
    rmSync(folder, { recursive: true });
  }
}

if (import.meta.main) {
  if (process.argv.includes('--check')) {
    const stale = staleProto();
    for (const name of stale)
      process.stderr.write(`proto/gen/${name} is not what proto/ says: run scripts/generate-proto.ts\n`);
    process.exitCode = stale.length === 0 ? 0 : 1;
  } else {
    rmSync(generated, { recursive: true, force: true });
    generateProto(generated);
  }
}
