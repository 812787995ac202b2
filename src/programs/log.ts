// Log lines on standard error: one JSON object a line, or text for a person at a terminal.

/** Writes log lines of one program. */
export interface Log {
  debug(message: string, fields?: Record<string, unknown>): void;
  info(message: string, fields?: Record<string, unknown>): void;
  warn(message: string, fields?: Record<string, unknown>): void;
  error(message: string, fields?: Record<string, unknown>): void;
}

const levels = ['debug', 'info', 'warn', 'error'] as const;
type Level = (typeof levels)[number];

/** Makes a log that writes from `level` up. */
export function createLog(
  program: string,
  level: Level = 'info',
  write = (line: string) => process.stderr.write(line),
): Log {
  const text = process.stderr.isTTY === true;
  const at =
    (own: Level) =>
    (message: string, fields: Record<string, unknown> = {}) => {
      if (levels.indexOf(own) < levels.indexOf(level)) return;
      const time = new Date().toISOString();
      if (text) {
        const rest = Object.entries(fields).map(
          ([key, value]) => ` ${key}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
        );
        write(`${time.slice(11, 23)} ${own.padEnd(5)} ${message}${rest.join('')}\n`);
      } else write(`${JSON.stringify({ time, level: own, program, message, ...fields })}\n`);
    };
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
}
