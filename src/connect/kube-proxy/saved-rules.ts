// Reads what iptables-save prints and finds what kube-proxy left in it; writes what iptables-restore is to do about it.
import { isProxyChain } from './known-names.ts';

/** What of kube-proxy is in one table of iptables. */
export interface TableLeftovers {
  readonly table: string;
  readonly chains: readonly string[];
  /** Rules of the built-in chains that lead there, as `-A CHAIN ...`. */
  readonly jumps: readonly string[];
  /** Rules of anybody else that lead there: they stay, and so does what they lead to, empty. */
  readonly strangers: readonly string[];
}

const builtIn = new Set(['PREROUTING', 'INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING']);

/** The leftovers in the output of iptables-save or ip6tables-save; tables without any are left out. */
export function findInRules(saved: string): TableLeftovers[] {
  const found: TableLeftovers[] = [];
  let table = '';
  let chains: string[] = [];
  let rules: string[] = [];
  for (const line of saved.split('\n')) {
    if (line.startsWith('*')) [table, chains, rules] = [line.slice(1).trim(), [], []];
    else if (line.startsWith(':')) chains.push(line.slice(1).split(' ')[0]!);
    else if (line.startsWith('-A ')) rules.push(line.trim());
    else if (line.startsWith('COMMIT')) {
      const own = chains.filter(isProxyChain);
      if (own.length > 0) found.push({ table, chains: own, ...split(rules, new Set(own)) });
    }
  }
  return found;
}

function split(rules: readonly string[], own: ReadonlySet<string>): Pick<TableLeftovers, 'jumps' | 'strangers'> {
  const jumps: string[] = [];
  const strangers: string[] = [];
  for (const rule of rules) {
    const chain = rule.split(' ')[1]!;
    const target = targetOf(rule);
    if (own.has(chain) || target === undefined || !own.has(target)) continue;
    // kube-proxy marks packets in chains of its own only: who jumps to the mark from elsewhere is somebody else.
    if (builtIn.has(chain) && target !== 'KUBE-MARK-MASQ') jumps.push(rule);
    else strangers.push(rule);
  }
  return { jumps, strangers };
}

/** Where a rule leads; words in quotation marks are comments. */
function targetOf(rule: string): string | undefined {
  return / (?:-j|-g) (\S+)/.exec(rule.replace(/"(?:[^"\\]|\\.)*"/g, '""'))?.[1];
}

/** The input of `iptables-restore --noflush` that removes the leftovers and nothing else, each table in one go. */
export function removalScript(leftovers: readonly TableLeftovers[]): string {
  return leftovers
    .map(({ table, chains, jumps, strangers }) => {
      const kept = new Set(strangers.map(targetOf));
      return [
        `*${table}`,
        // Naming a chain empties it, so that none refers to another when they go.
        ...chains.map((chain) => `:${chain} - [0:0]`),
        ...jumps.map((rule) => rule.replace(/^-A /, '-D ')),
        ...chains.filter((chain) => !kept.has(chain)).map((chain) => `-X ${chain}`),
        'COMMIT',
        '',
      ].join('\n');
    })
    .join('');
}
