// Equality of plain row values, so that writing the same row twice is no change.

/** Whether two plain values (primitives, arrays, objects, byte arrays) hold the same; a missing field equals undefined. */
export function deepEqual(a: unknown, b: unknown): boolean {
  if (Object.is(a, b)) return true;
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false;
  if (Array.isArray(a) || ArrayBuffer.isView(a)) return equalLists(a as ArrayLike<unknown>, b);
  if (Array.isArray(b) || ArrayBuffer.isView(b)) return false;
  const left = a as Record<string, unknown>;
  const right = b as Record<string, unknown>;
  for (const key in left) if (!deepEqual(left[key], right[key])) return false;
  for (const key in right) if (right[key] !== undefined && left[key] === undefined) return false;
  return true;
}

function equalLists(a: ArrayLike<unknown>, b: unknown): boolean {
  if (!Array.isArray(b) && !ArrayBuffer.isView(b)) return false;
  const other = b as unknown as ArrayLike<unknown>;
  if (a.length !== other.length) return false;
  for (let i = 0; i < a.length; i++) if (!deepEqual(a[i], other[i])) return false;
  return true;
}
