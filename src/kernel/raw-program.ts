// Tiny programs written as instructions: enough to ask the kernel what it accepts, without a compiler.
import { BpfAttr, BpfCommand, bpf } from './bpf-syscall.ts';

/** One instruction: operation, destination and source register, offset, immediate. */
export type Instruction = readonly [code: number, dst: number, src: number, offset: number, immediate: number];

/** `r0 = value; exit`, the shortest program. */
export function returnProgram(value: number): Instruction[] {
  return [movImmediate(0, value), exit];
}

export const exit: Instruction = [0x95, 0, 0, 0, 0];

export function movImmediate(register: number, value: number): Instruction {
  return [0xb7, register, 0, 0, value];
}

/** Calls a helper by its number in enum bpf_func_id. */
export function callHelper(id: number): Instruction {
  return [0x85, 0, 0, 0, id];
}

const sleepableFlag = 16; // BPF_F_SLEEPABLE

/** Loads a program and returns its descriptor; throws KernelError when the kernel refuses it. */
export function loadInstructions(options: {
  type: number;
  instructions: readonly Instruction[];
  name?: string;
  expectedAttachType?: number;
  attachBtfId?: number;
  /** The program may sleep; programs run by a system call must. */
  sleepable?: boolean;
}): number {
  const bytes = new Uint8Array(options.instructions.length * 8);
  const view = new DataView(bytes.buffer);
  options.instructions.forEach(([code, dst, src, offset, immediate], i) => {
    view.setUint8(i * 8, code);
    view.setUint8(i * 8 + 1, dst | (src << 4));
    view.setInt16(i * 8 + 2, offset, true);
    view.setInt32(i * 8 + 4, immediate, true);
  });
  const attr = new BpfAttr(120)
    .u32(0, options.type)
    .u32(4, options.instructions.length)
    .pointer(8, bytes)
    .pointer(16, new TextEncoder().encode('GPL\0'))
    .u32(44, options.sleepable ? sleepableFlag : 0)
    .text(48, options.name ?? 'weir_probe', 16)
    .u32(68, options.expectedAttachType ?? 0)
    .u32(108, options.attachBtfId ?? 0);
  return bpf(BpfCommand.progLoad, attr, 'PROG_LOAD', options.name ?? 'probe');
}
