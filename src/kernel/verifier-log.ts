// Cuts a verifier log down to what a person needs: the complaint, the C line, and the last instructions.

export type VerifierComplaint = {
  /** What the verifier would not accept. */
  reason: string;
  /** The C source line last seen before it, with file and line where the log has them. */
  sourceLine: string | undefined;
  /** The last lines of the log before the complaint. */
  tail: string[];
};

/** Reads the end of a verifier log. */
export function summarizeVerifierLog(log: string, tailLines = 8): VerifierComplaint {
  const lines = log
    .split('\n')
    .map((line) => line.trimEnd())
    .filter((line) => line !== '' && !isStatistics(line));
  // Complaints that follow each other without an instruction between them belong together.
  let first = lines.length;
  while (first > 0 && !isInstruction(lines[first - 1]!) && !lines[first - 1]!.startsWith(';')) first--;
  const complaint = lines.slice(Math.max(first, lines.length - 4));
  const before = lines.slice(0, first);
  const sourceLine = before.findLast((line) => line.startsWith(';'));
  return {
    reason: complaint.join('; ') || 'the verifier gave no reason',
    sourceLine: sourceLine?.replace(/^;\s*/, ''),
    tail: before.slice(-tailLines),
  };
}

function isInstruction(line: string): boolean {
  return /^\s*\d+: /.test(line) || /^(from \d+ to|R\d+(_\w+)?=)/.test(line);
}

function isStatistics(line: string): boolean {
  return /^(processed \d+ insns|verification time|stack depth|max_states)/.test(line);
}
