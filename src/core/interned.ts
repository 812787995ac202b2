// One object for all values that are equal: where there are hundreds of thousands of rows, what they have in common is most
// of their memory.

/** Answers the value of a key, made once. Forgets all when there are more than `limit`: values of before stay valid, they
 * are only no longer shared with those to come. */
export function createInterned<T>(limit: number): (key: string, make: () => T) => T {
  const known = new Map<string, T>();
  return (key, make) => {
    const found = known.get(key);
    if (found !== undefined) return found;
    if (known.size >= limit) known.clear();
    const made = make();
    known.set(key, made);
    return made;
  };
}
