// What a program does when whoever reads its output has seen enough: `weir ct list | head` is no error.

/** Ends the process quietly once its output is closed at the other end. Call it once, at the start of a program. */
export function exitWhenOutputCloses(exitCode = 0): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(exitCode);
    throw error;
  });
}
