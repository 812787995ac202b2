// Text of strangers on a terminal: names and arguments come from others, and a terminal obeys control characters.

// biome-ignore lint/suspicious/noControlCharactersInRegex: what must not reach a terminal is just those
const controls = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/** The text with what a terminal would obey, or what turns its direction round, replaced. */
export function printable(text: string): string {
  return text.replace(controls, '?');
}

/** One line of news on standard error. */
export function say(message: string): void {
  process.stderr.write(`weir: ${printable(message)}\n`);
}
