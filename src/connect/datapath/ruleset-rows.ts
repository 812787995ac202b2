// Rulesets in the kernel: which of their rows are there, how many each owner has, and what they let through. A ruleset is of use
// only whole, and the rows of one that somebody still points to stay until nobody does.
import { type PolicyPortRow, policyPortKey } from '../../core/rows.ts';
import { datapathMaps } from '../../kernel/datapath.gen.ts';
import type { KernelMap } from './kernel-map.ts';

/** What a ruleset lets through. */
export interface RulesetMeaning {
  readonly denies: boolean;
  /** Protocols and ports that are allowed. */
  readonly allows: ReadonlySet<number>;
}

/** The rows of all rulesets. */
export interface RulesetRows {
  /** Says to whom a ruleset belongs, before its rows; the empty name may have any number of them. */
  own(ruleset: number, owner: string): void;
  put(row: PolicyPortRow): void;
  /** All rows of a ruleset are removed together. */
  remove(row: PolicyPortRow): void;
  /** One peer more, or less, should point elsewhere and still points to it. */
  hold(ruleset: number, by: 1 | -1): void;
  /** Whether all rows that were put are in the kernel. */
  isWhole(ruleset: number): boolean;
  /** Undefined for one of an earlier run, of which nothing is known. */
  meaning(ruleset: number): RulesetMeaning | undefined;
  /** Whether a ruleset lets nothing through that another one does not. Of one from an earlier run nothing is known. */
  isNarrower(ruleset: number, than: RulesetMeaning): boolean;
  /** The owner of a ruleset that lacks rows because its owner may have no more. */
  overShare(ruleset: number): string | undefined;
  /** Notes the rows that the map has by now, and writes those for which their owners have a share again. */
  retry(): void;
}

interface Ruleset {
  owner: string;
  /** Rows that count for the owner: those in the kernel and those that found the map full, unless they are leaving. */
  counted: number;
  /** Rows that are not in the kernel. */
  readonly missing: Set<string>;
  /** Those of them that are more than the owner's share. */
  readonly beyond: Map<string, PolicyPortRow>;
  denies: boolean;
  readonly allows: Set<number>;
  holders: number;
  /** To be removed once nobody holds it. */
  readonly leaving: Map<string, PolicyPortRow>;
}

/** Takes the map over. The rulesets of one owner have at most `share` rows together. */
export function createRulesetRows(ports: KernelMap, share: number): RulesetRows {
  const rulesets = new Map<number, Ruleset>();
  const countOf = new Map<string, number>();

  function rulesetOf(number: number): Ruleset {
    let ruleset = rulesets.get(number);
    if (ruleset === undefined) {
      ruleset = {
        owner: '',
        counted: 0,
        missing: new Set(),
        beyond: new Map(),
        denies: false,
        allows: new Set(),
        holders: 0,
        leaving: new Map(),
      };
      rulesets.set(number, ruleset);
    }
    return ruleset;
  }

  /** Whether the next row would be one too many for its owner. */
  function isBeyondShare({ owner }: Ruleset): boolean {
    return owner !== '' && (countOf.get(owner) ?? 0) >= share;
  }

  function count(ruleset: Ruleset, by: number): void {
    ruleset.counted += by;
    const sum = (countOf.get(ruleset.owner) ?? 0) + by;
    if (sum > 0) countOf.set(ruleset.owner, sum);
    else countOf.delete(ruleset.owner);
  }

  function write(ruleset: Ruleset, row: PolicyPortRow): void {
    const key = policyPortKey(row);
    if (ports.put(portKey(row), portValue(row), key)) ruleset.missing.delete(key);
    else ruleset.missing.add(key);
  }

  function drop(row: PolicyPortRow): void {
    ports.remove(portKey(row), policyPortKey(row));
    const ruleset = rulesets.get(row.ruleset);
    if (ruleset !== undefined) count(ruleset, -ruleset.counted);
    rulesets.delete(row.ruleset);
  }

  return {
    own(number, owner) {
      rulesetOf(number).owner = owner;
    },
    put(row) {
      const ruleset = rulesetOf(row.ruleset);
      if (row.allow) ruleset.allows.add(portsNumber(row));
      else ruleset.denies = true;
      const key = policyPortKey(row);
      // It is wanted again: it must not go when those go who held it.
      const isThere = ruleset.leaving.delete(key);
      const counts = !isThere && ruleset.missing.has(key) && !ruleset.beyond.has(key);
      if (!isThere && !counts && isBeyondShare(ruleset)) {
        ruleset.beyond.set(key, row);
        ruleset.missing.add(key);
        return;
      }
      if (!counts) count(ruleset, 1);
      ruleset.beyond.delete(key);
      write(ruleset, row);
    },
    remove(row) {
      const ruleset = rulesetOf(row.ruleset);
      if (ruleset.holders === 0) return drop(row);
      // It goes as soon as what takes its place is there, which must not wait for its room.
      const key = policyPortKey(row);
      if (!ruleset.leaving.has(key) && !ruleset.beyond.has(key)) count(ruleset, -1);
      ruleset.leaving.set(key, row);
    },
    hold(number, by) {
      const ruleset = rulesetOf(number);
      ruleset.holders += by;
      if (ruleset.holders === 0) for (const row of ruleset.leaving.values()) drop(row);
    },
    isWhole: (number) => (rulesets.get(number)?.missing.size ?? 0) === 0,
    meaning: (number) => rulesets.get(number),
    isNarrower(number, than) {
      const ruleset = rulesets.get(number);
      if (ruleset === undefined) return false;
      if (ruleset.allows.size === 0) return ruleset.denies;
      if (than.denies) return false;
      return than.allows.has(everyPort) || [...ruleset.allows].every((each) => than.allows.has(each));
    },
    overShare(number) {
      const ruleset = rulesets.get(number);
      return ruleset !== undefined && ruleset.beyond.size > 0 ? ruleset.owner : undefined;
    },
    retry() {
      const failing = new Set(ports.status().failing.map((each) => each.row));
      for (const ruleset of rulesets.values())
        for (const key of ruleset.missing) {
          const row = ruleset.beyond.get(key);
          if (row === undefined) {
            if (!failing.has(key)) ruleset.missing.delete(key);
          } else if (!isBeyondShare(ruleset)) {
            ruleset.beyond.delete(key);
            count(ruleset, 1);
            write(ruleset, row);
          }
        }
    },
  };
}

function portKey(row: PolicyPortRow): Uint8Array {
  return datapathMaps.policy_ports.key.encode({
    prefixlen: 32 + row.prefixBits,
    ruleset: row.ruleset,
    protocol: row.protocol,
    portHi: row.port >> 8,
    portLo: row.port & 255,
  });
}

function portValue(row: PolicyPortRow): Uint8Array {
  return datapathMaps.policy_ports.value.encode({
    cookie: row.cookie,
    proxyPort: row.proxyPort,
    allow: row.allow ? 1 : 0,
    stagedAllow: row.stagedAllow ? 1 : 0,
  });
}

/** Protocol and ports of a row as one number. */
function portsNumber(row: Pick<PolicyPortRow, 'protocol' | 'port' | 'prefixBits'>): number {
  return (row.protocol * 65_536 + row.port) * 64 + row.prefixBits;
}

const everyPort = portsNumber({ protocol: 0, port: 0, prefixBits: 0 });
