// The import law: what may use what. core <- kernel, kube <- connect, secure, observe <- programs; the pillars meet in
// tables only; lab uses core and kernel; core does no I/O.
import { globSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';

const layers: Record<string, readonly string[]> = {
  'src/core': [],
  'src/kernel': ['src/core'],
  'src/kube': ['src/core'],
  'src/connect': ['src/core', 'src/kernel', 'src/kube'],
  'src/secure': ['src/core', 'src/kernel', 'src/kube'],
  'src/observe': ['src/core', 'src/kernel', 'src/kube', 'proto'],
  'src/programs': ['src/core', 'src/kernel', 'src/kube', 'src/connect', 'src/secure', 'src/observe', 'proto'],
  lab: ['src/core', 'src/kernel'],
};
/** Standard modules that core may use: none of them does input or output. Tests may use more. */
const pureModules = new Set<string>([]);

/** What is wrong with one import, or undefined. Paths are relative to the root. */
export function importProblem(file: string, target: string): string | undefined {
  const from = Object.keys(layers).find((layer) => file.startsWith(`${layer}/`));
  if (from === undefined) return undefined;
  const test = file.endsWith('.test.ts');
  if (!target.startsWith('.')) {
    if (from !== 'src/core' || test || pureModules.has(target)) return undefined;
    return `core is pure: it may not import ${target}. Move what does I/O to kernel/, kube/ or programs/.`;
  }
  const path = normalize(join(dirname(file), target));
  const to = Object.keys(layers).find((layer) => path.startsWith(`${layer}/`)) ?? path.split('/')[0]!;
  if (to === from || layers[from]!.includes(to)) return undefined;
  if (to === 'lab') return `nothing uses the lab. Tests of a cluster belong in test/.`;
  const pillars = ['src/connect', 'src/secure', 'src/observe'];
  if (pillars.includes(from) && pillars.includes(to))
    return `${from} and ${to} are pillars: they meet in tables. Put the row type in src/core/rows and join in src/programs.`;
  return `${from} may import ${layers[from]!.join(', ') || 'nothing'}, not ${to}. Imports run downwards.`;
}

/** The module names that a file imports. */
export function importsOf(text: string): string[] {
  return [
    ...text.matchAll(
      /(?:^|[\s;])(?:import|export)\b[^'";]*?from\s*'([^']+)'|import\s*\(\s*'([^']+)'\s*\)|^import\s+'([^']+)'/gm,
    ),
  ].map((match) => (match[1] ?? match[2] ?? match[3])!);
}

if (import.meta.main) {
  process.chdir(fileURLToPath(new URL('..', import.meta.url)));
  let problems = 0;
  for (const file of globSync('{src,lab}/**/*.ts')) {
    for (const target of importsOf(readFileSync(file, 'utf8'))) {
      const problem = importProblem(file, target);
      if (problem === undefined) continue;
      process.stdout.write(`${file}: imports ${target}: ${problem}\n`);
      problems++;
    }
  }
  process.exitCode = problems === 0 ? 0 : 1;
}
