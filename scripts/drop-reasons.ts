// Reads the list of drop reasons from its C header: lines X(NAME, number, "what it means", "what to do").

export type DropReason = { name: string; number: number; meaning: string; action: string };

const entry = /\bX\(\s*([A-Z][A-Z0-9_]*)\s*,\s*(\d+)\s*,\s*"((?:[^"\\]|\\.)*)"\s*,\s*"((?:[^"\\]|\\.)*)"\s*\)/g;

/** The reasons in the order of the header. Throws when a name or number comes twice, or none is found. */
export function parseDropReasons(header: string): DropReason[] {
  const joined = header.replace(/\/\*[\s\S]*?\*\//g, '').replace(/\\\n/g, ' ');
  const reasons = [...joined.matchAll(entry)].map(([, name, number, meaning, action]) => ({
    name: name!,
    number: Number(number),
    meaning: unquote(meaning!),
    action: unquote(action!),
  }));
  if (reasons.length === 0) throw new Error('no drop reasons found: expected lines X(NAME, number, "...", "...")');
  for (const key of ['name', 'number'] as const) {
    const seen = new Set<string | number>();
    for (const reason of reasons) {
      if (seen.has(reason[key])) throw new Error(`drop reason ${key} ${reason[key]} comes twice`);
      seen.add(reason[key]);
    }
  }
  return reasons;
}

function unquote(text: string): string {
  return text.replace(/\\(.)/g, '$1');
}
