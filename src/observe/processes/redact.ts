// Arguments as they are shown: what looks like a secret is left out before anything keeps it.

const redacted = '***';

/**
 * Options and assignments whose names promise a secret, headers and addresses that carry one. The first group of
 * each is what is replaced.
 */
export const secretPatterns: readonly RegExp[] = [
  /(?:^|[\s'"])(?:--?|\b)(?:[\w.-]*(?:passw(?:or)?d|passphrase|secret|token|credential|api[_-]?key|access[_-]?key|private[_-]?key))(?:[= ]|\s+)("[^"]*"|'[^']*'|[^\s'"]+)/gi,
  /\bauthorization:\s*(?:bearer|basic|digest)?\s*([^\s'"]+)/gi,
  /\b[a-z][a-z0-9+.-]*:\/\/[^\s/:@'"]*:([^\s/@'"]+)@/gi,
  /(?:^|\s)-u\s*[^\s:'"]+:([^\s'"]+)/g,
];

/** A line without what the patterns find. */
export function redactArguments(line: string, patterns: readonly RegExp[]): string {
  let result = line;
  for (const pattern of patterns)
    result = result.replace(pattern, (whole: string, ...rest: unknown[]) => {
      const secret = typeof rest[0] === 'string' ? rest[0] : undefined;
      if (secret === undefined) return redacted;
      const at = whole.lastIndexOf(secret);
      return `${whole.slice(0, at)}${redacted}${whole.slice(at + secret.length)}`;
    });
  return result;
}

/** Arguments as one line that a shell would take apart again. */
export function quoteArguments(args: readonly string[]): string {
  return args.map((each) => (/^[\w@%+=:,./-]+$/.test(each) ? each : `'${each.replaceAll("'", `'\\''`)}'`)).join(' ');
}
