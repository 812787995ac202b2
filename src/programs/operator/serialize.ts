// Work that is asked for more often than it can be done.

/** Runs `work` after each call, one at a time; calls while it runs are one more run. Failures are retried. */
export function serialize(work: () => Promise<void>, signal: AbortSignal, onError: (error: Error) => void): () => void {
  let running = false;
  let again = false;
  const run = async () => {
    if (signal.aborted) return;
    if (running) {
      again = true;
      return;
    }
    running = true;
    do {
      again = false;
      try {
        await work();
      } catch (error) {
        if (signal.aborted) break;
        onError(error as Error);
        await new Promise((resolve) => setTimeout(resolve, 500));
        again = true;
      }
    } while (again && !signal.aborted);
    running = false;
  };
  return () => void run();
}
