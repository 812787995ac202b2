// A terminal that is drawn anew again and again, and whose keys are heard: for commands that show how things are now.

/** Keys as they are named here; others are their character. */
export type Key = 'up' | 'down' | 'page up' | 'page down' | 'interrupt' | (string & {});

/** What is on the screen. */
export interface LiveScreen {
  /** Draws now, and not only when it is time. */
  redraw(): void;
  /** Gives the terminal back as it was. */
  close(): void;
}

const sequences: Readonly<Record<string, Key>> = {
  '\u001b[A': 'up',
  '\u001b[B': 'down',
  '\u001b[5~': 'page up',
  '\u001b[6~': 'page down',
  '\u0003': 'interrupt',
};
const introducer = '\u001b[';
// biome-ignore lint/suspicious/noControlCharactersInRegex: terminals send keys as escape sequences
const keyPattern = /\u001b\[\d*[A-Z~]|[\s\S]/gu;

/** The keys in what a terminal sent: several may come at once. */
export function keysOf(text: string): Key[] {
  return [...text.matchAll(keyPattern)].map(([key]) => sequences[key] ?? key);
}

/** Whether there is a terminal at both ends. */
export function isInteractive(): boolean {
  return process.stdout.isTTY === true && process.stdin.isTTY === true;
}

/** Takes the terminal. `draw` gives lines without their ends; what does not fit is cut. */
export function openLiveScreen(options: {
  readonly draw: (columns: number, lines: number) => readonly string[];
  readonly onKey: (key: Key) => void;
  readonly everyMs?: number;
}): LiveScreen {
  const { stdin, stdout } = process;
  const { draw, onKey, everyMs = 1_000 } = options;
  let open = true;

  function redraw(): void {
    // A terminal that does not keep up is shown less often.
    if (!open || stdout.writableNeedDrain) return;
    const { columns = 80, rows = 24 } = stdout;
    const lines = draw(columns, rows).slice(0, rows);
    const clear = `${introducer}K`;
    stdout.write(`${introducer}H${lines.map((line) => `${line}${clear}`).join('\r\n')}${introducer}J`);
  }
  function heard(data: Buffer): void {
    for (const key of keysOf(data.toString('utf8'))) onKey(key);
    redraw();
  }
  function close(): void {
    if (!open) return;
    open = false;
    clearInterval(timer);
    stdin.off('data', heard);
    stdin.setRawMode(false);
    stdin.pause();
    stdout.off('resize', redraw);
    process.off('exit', close);
    stdout.write(`${introducer}?25h${introducer}?1049l`);
  }

  stdout.write(`${introducer}?1049h${introducer}?25l`);
  stdin.setRawMode(true);
  stdin.resume();
  stdin.on('data', heard);
  stdout.on('resize', redraw);
  // Whatever ends the command, the terminal is given back.
  process.once('exit', close);
  const timer = setInterval(redraw, everyMs);
  redraw();
  return { redraw, close };
}
