// Which peers a rule matches and which rules match a peer, both without looking at everything.
import { isNode, isOutside, reservedIdentities } from '../../core/identity.ts';
import type { PolicyPeer } from '../../core/rows.ts';
import type { Classes, PolicyClass } from './classes.ts';
import type { CompiledRule } from './compiled-rule.ts';
import type { Selectors } from './selectors.ts';

/** The rules in use. */
export interface RuleIndex {
  add(rule: CompiledRule): void;
  remove(rule: CompiledRule): void;
  /** The classes a rule matches other than by matching any peer. May name one twice. */
  classesOf(rule: CompiledRule): IterableIterator<PolicyClass>;
  /** The rules that match a class other than by matching any peer. */
  rulesOf(peer: PolicyClass): Set<CompiledRule>;
}

const apiServer = reservedIdentities['kube-apiserver'];

/** Makes an empty index over the classes and selectors, which it tells what rules use. */
export function createRuleIndex(classes: Classes, selectors: Selectors): RuleIndex {
  const blockRules = new Map<string, Set<CompiledRule>>();
  const reservedRules = new Map<number, Set<CompiledRule>>();
  /** Rules for any peer that name a port: each peer resolves the name with its own numbers. */
  const namingWildcards = new Set<CompiledRule>();

  function count(rule: CompiledRule, by: 1 | -1): void {
    for (const peer of rule.peers ?? []) {
      if (peer.kind !== 'block') continue;
      for (const cidr of [peer.cidr, ...peer.except]) classes.useBlock(cidr, by);
    }
    for (const { name, protocol } of rule.portNames) classes.usePortName(name, protocol, by);
  }

  return {
    add(rule) {
      count(rule, 1);
      selectors.use(rule);
      for (const cidr of blocksOf(rule)) addTo(blockRules, cidr, rule);
      for (const identity of reservedOf(rule)) addTo(reservedRules, identity, rule);
      const any = rule.peers === undefined;
      if (any && rule.direction === 'egress' && rule.portNames.length > 0) namingWildcards.add(rule);
    },
    remove(rule) {
      count(rule, -1);
      selectors.unuse(rule);
      for (const cidr of blocksOf(rule)) removeFrom(blockRules, cidr, rule);
      for (const identity of reservedOf(rule)) removeFrom(reservedRules, identity, rule);
      namingWildcards.delete(rule);
    },
    *classesOf(rule) {
      for (const selector of selectors.of(rule)) {
        for (const identity of selector.identities) {
          for (const candidate of classes.byIdentity(identity)) if (!candidate.pending) yield candidate;
        }
      }
      for (const identity of reservedOf(rule)) {
        yield* classes.byIdentity(identity);
        if (identity === apiServer) yield* classes.ofApiServers();
      }
      for (const peer of rule.peers ?? []) {
        if (peer.kind !== 'block') continue;
        for (const candidate of classes.byBlock(peer.cidr)) if (inBlock(peer, candidate)) yield candidate;
      }
      if (!namingWildcards.has(rule)) return;
      for (const { name, protocol } of rule.portNames) yield* classes.byPortName(name, protocol);
    },
    rulesOf(peer) {
      const found = new Set<CompiledRule>();
      if (!peer.pending) {
        for (const selector of selectors.selecting(peer.identity)) for (const rule of selector.rules) found.add(rule);
      }
      for (const rule of reservedRules.get(peer.identity) ?? []) found.add(rule);
      if (peer.apiServer) for (const rule of reservedRules.get(apiServer) ?? []) found.add(rule);
      for (const cidr of peer.prefixes) {
        for (const rule of blockRules.get(cidr) ?? []) {
          if (rule.peers?.some((entry) => inBlock(entry, peer))) found.add(rule);
        }
      }
      for (const rule of namingWildcards) if (resolvesName(rule, peer)) found.add(rule);
      return found;
    },
  };
}

function blocksOf(rule: CompiledRule): string[] {
  return (rule.peers ?? []).flatMap((peer) => (peer.kind === 'block' ? [peer.cidr] : []));
}

function reservedOf(rule: CompiledRule): number[] {
  return (rule.peers ?? []).flatMap((peer) => (peer.kind === 'reserved' ? peer.identities : []));
}

function inBlock(entry: PolicyPeer, peer: PolicyClass): boolean {
  if (entry.kind !== 'block' || !peer.prefixes.includes(entry.cidr)) return false;
  if (entry.reach === 'outside' && !isOutside(peer.identity)) return false;
  if (entry.reach === 'not-pods' && !isOutside(peer.identity) && !isNode(peer.identity)) return false;
  return !entry.except.some((cidr) => peer.prefixes.includes(cidr));
}

function resolvesName(rule: CompiledRule, peer: PolicyClass): boolean {
  return rule.portNames.some(({ name, protocol }) =>
    peer.namedPorts.some((port) => port.name === name && port.protocol === protocol),
  );
}

function addTo<K, V>(map: Map<K, Set<V>>, key: K, value: V): void {
  const set = map.get(key);
  if (set === undefined) map.set(key, new Set([value]));
  else set.add(value);
}

function removeFrom<K, V>(map: Map<K, Set<V>>, key: K, value: V): void {
  const set = map.get(key);
  if (set?.delete(value) && set.size === 0) map.delete(key);
}
