// Finds the name that somebody meant: by the fewest letters changed, left out, put in or swapped.

/** The name nearest to a word; undefined when none is near enough to be meant. */
export function nearestName(word: string, names: readonly string[]): string | undefined {
  const least = Math.max(1, Math.floor(word.length / 3));
  let best: string | undefined;
  let distance = least + 1;
  for (const name of names) {
    if (Math.abs(name.length - word.length) >= distance) continue;
    const own = editDistance(word.toLowerCase(), name.toLowerCase());
    if (own >= distance) continue;
    distance = own;
    best = name;
  }
  return best;
}

/** Damerau's, for neighbours. */
function editDistance(a: string, b: string): number {
  const rows: number[][] = [Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1;
      let least = Math.min(rows[i - 1]![j]! + 1, row[j - 1]! + 1, rows[i - 1]![j - 1]! + same);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        least = Math.min(least, rows[i - 2]![j - 2]! + 1);
      row.push(least);
    }
    rows.push(row);
  }
  return rows[a.length]![b.length]!;
}
