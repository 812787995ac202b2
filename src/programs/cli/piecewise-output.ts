// Standard output for many lines: those of one turn go out together, because a call of the system for each line is most of
// what a line costs.

/** Where text goes. */
export interface PiecewiseOutput {
  /** Waits when the other end does not keep up. */
  write(text: string): Promise<void> | undefined;
  /** Hands on what is here, at the latest before the program ends. */
  flush(): Promise<void> | undefined;
}

const pieceLength = 64 << 10;

/** Writes to `stream`. */
export function piecewiseOutput(stream: Pick<NodeJS.WriteStream, 'write' | 'once'> = process.stdout): PiecewiseOutput {
  let lines: string[] = [];
  let length = 0;
  let scheduled = false;
  let full: Promise<void> | undefined;

  function flush(): Promise<void> | undefined {
    scheduled = false;
    if (length === 0) return full;
    const text = lines.join('');
    lines = [];
    length = 0;
    if (stream.write(text) || full !== undefined) return full;
    full = new Promise((resolve) =>
      stream.once('drain', () => {
        full = undefined;
        resolve();
      }),
    );
    return full;
  }

  return {
    flush,
    write(text) {
      lines.push(text);
      length += text.length;
      if (length >= pieceLength) return flush();
      if (!scheduled) {
        scheduled = true;
        setImmediate(flush);
      }
      return full;
    },
  };
}
