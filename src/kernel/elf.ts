// Finds sections in a compiled BPF object (ELF, 64 bits, little-endian).

/** The bytes of a section such as `.BTF`, undefined when the file has none. Throws when it is not such an ELF file. */
export function elfSection(file: Uint8Array, name: string): Uint8Array | undefined {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (file.length < 64 || view.getUint32(0, false) !== 0x7f454c46 || file[4] !== 2 || file[5] !== 1) {
    throw new Error('not a 64-bit little-endian ELF file');
  }
  const headers = Number(view.getBigUint64(0x28, true));
  const entrySize = view.getUint16(0x3a, true);
  const count = view.getUint16(0x3c, true);
  const namesIndex = view.getUint16(0x3e, true);
  const range = (index: number): { start: number; end: number } => {
    const header = headers + index * entrySize;
    const start = Number(view.getBigUint64(header + 0x18, true));
    return { start, end: start + Number(view.getBigUint64(header + 0x20, true)) };
  };
  const names = range(namesIndex);
  for (let index = 0; index < count; index++) {
    const nameStart = names.start + view.getUint32(headers + index * entrySize, true);
    const text = new TextDecoder().decode(file.subarray(nameStart, file.indexOf(0, nameStart)));
    if (text === name) {
      const { start, end } = range(index);
      return file.subarray(start, end);
    }
  }
  return undefined;
}
