// Rulesets: what a pod allows one kind of peer, as entries of the longest-prefix map. A ruleset is known by its
// content: the same content is the same number, other content is another number, so that nothing the kernel is using
// is ever edited.
import { hash } from 'node:crypto';
import { allowAllRuleset, type NamedPort, type PolicyPortRow, protocolNumbers } from '../../core/rows.ts';
import type { CompiledRule } from './compiled-rule.ts';
import type { Cookies } from './cookies.ts';
import type { Numbering } from './numbering.ts';
import { anything, type PortPrefix, portPrefix, prefixNumber, widen } from './port-prefix.ts';
import { decide } from './precedence.ts';

/** An entry before it has a ruleset. */
export type PortEntry = Omit<PolicyPortRow, 'ruleset'>;

/** Whether the endpoint is isolated, by enforced policies and by staged ones as well, and who says so. */
export interface Isolation {
  readonly enforced: boolean;
  readonly staged: boolean;
  /** Whether any policy is staged; else the staged verdict is the verdict. */
  readonly anyStaged: boolean;
  readonly denyCookie: number;
}

/**
 * The entries for one peer. The most specific entry decides in the kernel, so each entry carries every rule that
 * covers it. Named ports are resolved with `namedPorts`, the destination's. With a `fallback`, where the kernel looks
 * when no entry here matches, what it says anyway is left out; without one the first entry is the catch-all.
 */
export function portEntries(
  rules: readonly CompiledRule[],
  namedPorts: readonly NamedPort[],
  isolation: Isolation,
  cookies: Cookies,
  fallback?: readonly PortEntry[],
): PortEntry[] {
  const own = new Map<number, { prefix: PortPrefix; rules: CompiledRule[] }>();
  const add = (prefix: PortPrefix, rule: CompiledRule): void => {
    const entry = own.get(prefixNumber(prefix));
    if (entry === undefined) own.set(prefixNumber(prefix), { prefix, rules: [rule] });
    else entry.rules.push(rule);
  };
  for (const rule of rules) {
    for (const prefix of rule.prefixes) add(prefix, rule);
    for (const { name, protocol } of rule.portNames) {
      for (const port of namedPorts) {
        if (port.name === name && port.protocol === protocol)
          add(portPrefix(protocolNumbers[protocol], port.port), rule);
      }
    }
  }
  if (!own.has(prefixNumber(anything))) own.set(prefixNumber(anything), { prefix: anything, rules: [] });

  const behind = new Map(fallback?.map((entry) => [prefixNumber(entry), entry]));
  const lengths = lengthsOf([...own.values()].map(({ prefix }) => prefix));
  const fallbackLengths = lengthsOf(fallback ?? []);
  const entries = new Map<number, PortEntry>();
  // From wide to narrow, so that the entry around each is there already.
  for (const key of [...own.keys()].sort((a, b) => a - b)) {
    const { prefix, rules: direct } = own.get(key)!;
    const covering = new Set(direct);
    let around: PortEntry | undefined;
    for (const length of lengths) {
      if (length >= prefix.prefixBits) continue;
      const outer = prefixNumber(widen(prefix, length));
      around ??= entries.get(outer);
      for (const rule of own.get(outer)?.rules ?? []) covering.add(rule);
    }
    const entry = judge(prefix, [...covering], isolation, cookies);
    around ??= longestAround(behind, fallbackLengths, prefix);
    if (around === undefined || !sameVerdict(around, entry)) entries.set(key, entry);
  }
  return [...entries.values()];
}

/** The prefix lengths in use, the longest first. */
function lengthsOf(prefixes: readonly PortPrefix[]): number[] {
  return [...new Set(prefixes.map((prefix) => prefix.prefixBits))].sort((a, b) => b - a);
}

function longestAround(
  entries: ReadonlyMap<number, PortEntry>,
  lengths: readonly number[],
  prefix: PortPrefix,
): PortEntry | undefined {
  for (const length of lengths) {
    if (length > prefix.prefixBits) continue;
    const entry = entries.get(prefixNumber(widen(prefix, length)));
    if (entry !== undefined) return entry;
  }
  return undefined;
}

function judge(
  prefix: PortPrefix,
  covering: readonly CompiledRule[],
  isolation: Isolation,
  cookies: Cookies,
): PortEntry {
  const outcome = decide(
    covering.filter((rule) => !rule.staged),
    isolation.enforced,
  );
  const allow = allows(outcome);
  let cookie = 0;
  if (outcome.verdict === 'default-deny') cookie = isolation.denyCookie;
  else if ('rules' in outcome) {
    const speaking = outcome.rules.filter((rule) => rule.originKey !== '');
    if (speaking.length > 0) cookie = cookies.number({ verdict: outcome.verdict, rules: speaking });
  }
  const stagedAllow = isolation.anyStaged ? allows(decide(covering, isolation.staged)) : allow;
  return { ...prefix, allow, proxyPort: 0, cookie, stagedAllow };
}

function allows({ verdict }: { readonly verdict: string }): boolean {
  return verdict === 'allow' || verdict === 'none';
}

/** Whether two entries say the same. */
function sameVerdict(a: PortEntry, b: PortEntry): boolean {
  return a.allow === b.allow && a.cookie === b.cookie && a.stagedAllow === b.stagedAllow && a.proxyPort === b.proxyPort;
}

/** A canonical text of entries. */
function entriesKey(entries: readonly PortEntry[]): string {
  const text = entries
    .map((entry) => {
      const { allow, stagedAllow, cookie, proxyPort } = entry;
      return `${prefixNumber(entry)}:${allow ? 1 : 0}${stagedAllow ? 1 : 0}:${cookie}:${proxyPort}`;
    })
    .sort()
    .join(' ');
  return text.length <= 64 ? text : hash('sha256', text, 'base64');
}

/** A ruleset in use. */
export interface Ruleset {
  readonly number: number;
  readonly key: string;
  readonly entries: readonly PortEntry[];
  uses: number;
}

/** All rulesets. */
export interface Rulesets {
  /** Allows everything; always there. */
  readonly allowAll: Ruleset;
  /** The ruleset of this content, one use counted. */
  retain(entries: readonly PortEntry[]): Ruleset;
  retainAgain(ruleset: Ruleset): Ruleset;
  release(ruleset: Ruleset): void;
  /** Ends a round: what changed in the rows since the last, and of whose policies new rulesets are made. */
  settle(): { upsert: PolicyPortRow[]; delete: PolicyPortRow[]; owners: [ruleset: number, namespace: string][] };
  rows(): IterableIterator<PolicyPortRow>;
  readonly size: number;
}

/** Makes the set of rulesets, which begins with the one that allows everything. */
export function createRulesets(numbering: Numbering, cookies: Cookies): Rulesets {
  const everything: PortEntry[] = [{ ...anything, allow: true, proxyPort: 0, cookie: 0, stagedAllow: true }];
  const allowAll: Ruleset = { number: allowAllRuleset, key: entriesKey(everything), entries: everything, uses: 1 };
  const rulesets = new Map<string, Ruleset>();
  const fresh = new Set<Ruleset>([allowAll]);
  const unused = new Set<Ruleset>();
  /** Peers with the same rules share one list: its key is made once. */
  const keys = new WeakMap<readonly PortEntry[], string>();

  function keyOf(entries: readonly PortEntry[]): string {
    let key = keys.get(entries);
    if (key === undefined) {
      key = entriesKey(entries);
      keys.set(entries, key);
    }
    return key;
  }

  function* rowsOf(ruleset: Ruleset): IterableIterator<PolicyPortRow> {
    for (const entry of ruleset.entries) yield { ruleset: ruleset.number, ...entry };
  }

  /** Policies of a namespace select its own pods only: besides those of the whole cluster, all are of one. */
  function ownerOf(ruleset: Ruleset): string {
    for (const { cookie } of ruleset.entries)
      for (const { namespace } of cookies.get(cookie)?.rules ?? []) if (namespace !== '') return namespace;
    return '';
  }

  return {
    allowAll,
    get size() {
      return rulesets.size + 1;
    },
    retain(entries) {
      const key = keyOf(entries);
      if (key === allowAll.key) return this.retainAgain(allowAll);
      let ruleset = rulesets.get(key);
      if (ruleset === undefined) {
        ruleset = { number: numbering.acquire(key), key, entries, uses: 0 };
        rulesets.set(key, ruleset);
        fresh.add(ruleset);
        for (const { cookie } of entries) if (cookie !== 0) cookies.retain(cookie);
      }
      ruleset.uses++;
      unused.delete(ruleset);
      return ruleset;
    },
    retainAgain(ruleset) {
      ruleset.uses++;
      unused.delete(ruleset);
      return ruleset;
    },
    release(ruleset) {
      if (--ruleset.uses === 0) unused.add(ruleset);
    },
    settle() {
      const gone: PolicyPortRow[] = [];
      for (const ruleset of unused) {
        rulesets.delete(ruleset.key);
        numbering.release(ruleset.key);
        for (const { cookie } of ruleset.entries) if (cookie !== 0) cookies.release(cookie);
        if (!fresh.delete(ruleset)) gone.push(...rowsOf(ruleset));
      }
      unused.clear();
      const upsert = [...fresh].flatMap((ruleset) => [...rowsOf(ruleset)]);
      const owners = [...fresh].map((ruleset): [number, string] => [ruleset.number, ownerOf(ruleset)]);
      fresh.clear();
      numbering.sweep();
      return { upsert, delete: gone, owners };
    },
    *rows() {
      yield* rowsOf(allowAll);
      for (const ruleset of rulesets.values()) yield* rowsOf(ruleset);
    },
  };
}
