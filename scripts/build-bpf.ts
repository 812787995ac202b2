// Compiles bpf/*.bpf.c to build/bpf/*.bpf.o and regenerates the codecs. Objects newer than all they include stay.
// usage: build-bpf.ts [--force]            builds
//        build-bpf.ts --print-compiler     prints the compiler and its flags, one a line
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const outDir = join(root, 'build/bpf');
const compiler = process.env.CLANG ?? 'clang-19';
const architectures: Record<string, string> = { x64: 'x86_64-linux-gnu', arm64: 'aarch64-linux-gnu' };

const flags = [
  ...['-O2', '-g', '-target', 'bpf', '-mcpu=v3', '-Wall', '-Wextra', '-Werror', '-Wno-unused-parameter'],
  // Paths in the debug information are the verifier log's: keep them short and the same on every machine.
  ...[`-fdebug-prefix-map=${root}=.`, '-fno-ident'],
  `-I/usr/include/${architectures[process.arch] ?? 'x86_64-linux-gnu'}`,
];
if (process.argv.includes('--print-compiler')) {
  console.log([compiler, ...flags].join('\n'));
  process.exit(0);
}

mkdirSync(outDir, { recursive: true });
const sources = readdirSync(join(root, 'bpf')).filter((name) => name.endsWith('.bpf.c'));
let compiled = false;
const objects = sources.sort().map((source) => {
  const input = join(root, 'bpf', source);
  const output = join(outDir, source.replace(/\.c$/, '.o'));
  if (process.argv.includes('--force') || isStale(output)) compile(input, output);
  return output;
});
if (objects.length > 0) {
  const reasons = join(root, 'bpf/lib/drop_reasons.h');
  const args = ['--out', join(root, 'src/kernel/datapath.gen.ts')];
  if (existsSync(reasons)) args.push('--drop-reasons', reasons);
  run(process.execPath, [join(root, 'scripts/generate-codecs.ts'), ...args, ...objects]);
}

if (compiled && process.getuid?.() === 0) await printCost();

/** What the verifier goes through for each program: its limit is a million, and a jump up is a mistake in the making. */
async function printCost(): Promise<void> {
  const { loadObject } = await import('../src/kernel/bpf-object.ts');
  for (const path of objects.filter((each) => !each.endsWith('/types.bpf.o'))) {
    using object = loadObject({ path });
    for (const [name, { verifiedInsns, jitedBytes }] of object.programs) {
      console.log(`  ${name.padEnd(8)} ${verifiedInsns} instructions verified, ${jitedBytes} bytes of machine code`);
    }
  }
}

function compile(input: string, output: string): void {
  compiled = true;
  console.log(`clang ${input.slice(root.length + 1)}`);
  run(compiler, [...flags, '-MMD', '-MF', `${output}.d`, '-c', input, '-o', output]);
}

/** True when an object is older than something it was made from, going by the compiler's list of dependencies. */
function isStale(output: string): boolean {
  if (!existsSync(output) || !existsSync(`${output}.d`)) return true;
  const madeMs = statSync(output).mtimeMs;
  const [, list = ''] = readFileSync(`${output}.d`, 'utf8').split(/:\s/, 2);
  const inputs = list.split(/[\s\\]+/).filter((name) => name !== '');
  // Objects that were copied from another checkout were made from that one's files.
  if (!inputs.some((name) => name.startsWith(join(root, 'bpf/')))) return true;
  return inputs.some((name) => !existsSync(name) || statSync(name).mtimeMs > madeMs);
}

function run(command: string, args: string[]): void {
  try {
    execFileSync(command, args, { stdio: 'inherit', cwd: root });
  } catch {
    process.exit(1); // the command has said why
  }
}
