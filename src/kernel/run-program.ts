// Runs a program of type `syscall` once: the way user space calls into BPF without an event to hook.
import { BpfAttr, BpfCommand, bpf } from './bpf-syscall.ts';

/** Runs the program with `context` as its argument; what it wrote there is in the same array afterwards. */
export function runProgram(programFd: number, context: Uint8Array): number {
  const attr = new BpfAttr(80).u32(0, programFd).u32(40, context.length).pointer(48, context);
  bpf(BpfCommand.progTestRun, attr, 'PROG_RUN', `${context.length} bytes of context`);
  return attr.readU32(4) | 0;
}
