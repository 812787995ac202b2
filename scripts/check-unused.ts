// Finds exports that nothing outside their file uses: dead code, or an `export` too many. By name, over all sources, so
// a name used twice for different things may hide one; what it reports is real.
import { globSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** The names that a file exports. */
export function exportsOf(text: string): string[] {
  const names = [
    ...text.matchAll(
      /^export (?:declare )?(?:async )?(?:abstract )?(?:const|function\*?|class|interface|type|let) (\w+)/gm,
    ),
  ].map((match) => match[1]!);
  for (const match of text.matchAll(/^export \{([^}]+)\}(?! from)/gm)) {
    for (const part of match[1]!.split(',')) {
      const name = part
        .trim()
        .split(/\s+as\s+/)
        .at(-1);
      if (name) names.push(name.replace(/^type /, ''));
    }
  }
  return names;
}

/** Exports that no other file mentions. `files` maps paths to texts. Types used in their own file's exports may stay. */
export function unusedExports(files: ReadonlyMap<string, string>): { file: string; name: string }[] {
  const words = new Map<string, Set<string>>();
  for (const [file, text] of files) {
    for (const word of new Set(text.match(/\b\w+\b/g))) {
      const in_ = words.get(word) ?? new Set();
      in_.add(file);
      words.set(word, in_);
    }
  }
  const found: { file: string; name: string }[] = [];
  for (const [file, text] of files) {
    if (file.endsWith('.test.ts') || file.includes('.gen.')) continue;
    for (const name of exportsOf(text)) {
      const users = words.get(name)!;
      if (users.size > 1) continue;
      // The type of something exported is part of its contract although nobody names it.
      const uses = text.match(new RegExp(`\\b${name}\\b`, 'g'))!.length;
      const isType = new RegExp(`^export (?:interface|type) ${name}\\b`, 'm').test(text);
      if (isType && uses > 1) continue;
      found.push({ file, name });
    }
  }
  return found;
}

if (import.meta.main) {
  process.chdir(fileURLToPath(new URL('..', import.meta.url)));
  const paths = globSync('{src,lab,test,bench,scripts,bpf}/**/*.ts').filter((path) => !path.includes('node_modules'));
  const unused = unusedExports(new Map(paths.map((path) => [path, readFileSync(path, 'utf8')])));
  for (const { file, name } of unused)
    process.stdout.write(`${file}: nothing uses ${name}: delete it, or do not export it\n`);
  process.exitCode = unused.length === 0 ? 0 : 1;
}
