// Arguments as they are shown: what looks like a secret is left out before anything keeps it.

const redacted = '***';

const secretName = String.raw`[\w.-]*(?:passw|passphrase|secret|token|credential|key)[\w.-]*`;

/**
 * What looks like a secret inside of an argument, such as a line for a shell: assignments to names that promise one, headers
 * and addresses that carry one. The first group of each is what is replaced. None of them may try a text again and again from
 * everywhere: arguments come from strangers.
 */
export const secretPatterns: readonly RegExp[] = [
  new RegExp(String.raw`(?<![\w.-])${secretName}=("[^"]*"|'[^']*'|[^\s'"]+)`, 'gi'),
  /\bauthorization:\s*(?:(?:bearer|basic|digest|negotiate|ntlm|token|apikey)\s+)?([^'"]+)/gi,
  /(?<![\w+.-])[a-z][a-z0-9+.-]{0,32}:\/\/[^\s/:@'"]*:([^\s/@'"]+)@/gi,
  /(?:^|\s)-u\s*[^\s:'"]+:([^\s'"]+)/g,
];

const assignment = new RegExp(`^(-{0,2}${secretName})=(.*)$`, 'is');
const option = new RegExp(`^--?${secretName}$`, 'i');

/** Arguments without the values of options that promise a secret, whole, whatever is in them. */
export function withoutSecretValues(args: readonly string[]): string[] {
  return args.map((each, i) => {
    if (i > 0 && option.test(args[i - 1]!) && !each.startsWith('-')) return redacted;
    // A line for a shell is looked through by the patterns.
    if (i > 0 && args[i - 1] === '-c') return each;
    const match = assignment.exec(each);
    return match === null || match[2] === '' ? each : `${match[1]}=${redacted}`;
  });
}

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

/** Arguments as one line that a shell would take apart again; what stands for a secret stays as it is. */
export function quoteArguments(args: readonly string[]): string {
  return args
    .map((each) =>
      /^(?:[\w@%+=:,./-]+|(?:[\w.-]+=)?\*\*\*)$/.test(each) ? each : `'${each.replaceAll("'", `'\\''`)}'`,
    )
    .join(' ');
}
