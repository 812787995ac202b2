// What the kernel says about a loaded program.
import { BpfAttr, objectInfo, textAt } from './bpf-syscall.ts';

/** A program's facts. Run counters are zero unless statistics were switched on. */
export type ProgramInfo = {
  id: number;
  name: string;
  type: number;
  /** Hash of the instructions, in hexadecimal: equal programs have equal tags. */
  tag: string;
  /** Instructions the verifier walked to accept it: its cost, with a limit of one million. */
  verifiedInsns: number;
  jitedBytes: number;
  xlatedBytes: number;
  mapIds: number[];
  loadedAtNs: bigint;
  runCount: bigint;
  runTimeNs: bigint;
};

const infoBytes = 232; // struct bpf_prog_info up to attach_btf_id

/** Reads the facts of the program behind a descriptor. */
export function programInfo(fd: number): ProgramInfo {
  const mapIds = new Uint32Array(objectInfo(fd, infoBytes).readU32(52));
  const idBytes = new Uint8Array(mapIds.buffer);
  const info = objectInfo(fd, infoBytes, new BpfAttr(infoBytes).u32(52, mapIds.length).pointer(56, idBytes));
  return {
    type: info.readU32(0),
    id: info.readU32(4),
    tag: Buffer.from(info.bytes.subarray(8, 16)).toString('hex'),
    jitedBytes: info.readU32(16),
    xlatedBytes: info.readU32(20),
    loadedAtNs: info.readU64(40),
    name: textAt(info.bytes, 64, 16),
    mapIds: [...mapIds],
    runTimeNs: info.readU64(192),
    runCount: info.readU64(200),
    verifiedInsns: info.readU32(216),
  };
}
