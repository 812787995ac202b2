// What the lab tells while it works: one line per finished phase with its time, and one changing line on a terminal.

/** Receives the progress of something that takes time. */
export interface Progress {
  /** Something worth knowing. */
  note(text: string): void;
  /** Where a long phase is; may be shown or not. */
  tick(text: string): void;
  /** Runs a phase and reports how long it took. */
  phase<T>(name: string, work: () => Promise<T>): Promise<T>;
}

/** Progress as lines on stderr, so that stdout stays for results. */
export function terminalProgress(stream: NodeJS.WriteStream = process.stderr): Progress {
  let shown = false;
  let lastTickMs = 0;
  const clear = () => {
    if (shown) stream.write('\r\x1b[K');
    shown = false;
  };
  const line = (text: string) => {
    clear();
    stream.write(`${text}\n`);
  };
  return {
    note: (text) => line(`  ${text}`),
    tick(text) {
      const now = performance.now();
      if (stream.isTTY) {
        if (now - lastTickMs < 100) return;
        stream.write(`\r\x1b[K  ${text.slice(0, (stream.columns ?? 80) - 4)}`);
        shown = true;
      } else {
        if (now - lastTickMs < 20_000) return;
        line(`  ${text}`);
      }
      lastTickMs = now;
    },
    async phase(name, work) {
      const start = performance.now();
      const result = await work();
      line(`${((performance.now() - start) / 1000).toFixed(1).padStart(6)} s  ${name}`);
      return result;
    },
  };
}

/** Progress that nobody reads, for tests. */
export const silentProgress: Progress = {
  note: () => undefined,
  tick: () => undefined,
  phase: (_name, work) => work(),
};
