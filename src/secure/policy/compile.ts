// Compiles policy for this node, incrementally: what goes in are changes of identities, namespaces, addresses, blocks
// and policies; what comes out are changes of the kernel's rows. Cost follows the change. A subject is a class with
// endpoints of this node; a peer is any class. A subject's fallback (peer 0) judges whatever finds no row or no entry.
import { type Clock, systemClock } from '../../core/clock.ts';
import { type PodIdentity, podOfIdentity, reservedIdentities } from '../../core/identity.ts';
import {
  type AddressRow,
  type ClassRow,
  type CookieRow,
  type Direction,
  type IdentityRow,
  type IpcacheRow,
  type NamedPort,
  type PolicyPeerRow,
  type PolicyPortRow,
  sparesOwnNode,
} from '../../core/rows.ts';
import { createClasses, isLocal, type NumbersInKernel, type PolicyClass } from './classes.ts';
import type { CompiledRule } from './compiled-rule.ts';
import { createCookies } from './cookies.ts';
import { createLocalPolicies, directions, type Subject } from './local-policies.ts';
import { createNumbering, type NumberingState } from './numbering.ts';
import { createPeerRows } from './peer-rows.ts';
import { applyChanges, type PolicyChanges, type PolicyDelta } from './policy-delta.ts';
import { anything } from './port-prefix.ts';
import { createRuleIndex } from './rule-index.ts';
import { createRulesets, type PortEntry, portEntries } from './rulesets.ts';
import { createSelectors, type SelectionChange } from './selectors.ts';
import { baseOf, closedBase, reachesPeers, type SubjectBase } from './subject-base.ts';

/** The numbers to keep across restarts, as JSON. */
export interface PolicyCompilerState {
  readonly classes: NumberingState;
  readonly rulesets: NumberingState;
  readonly cookies: NumberingState;
}

/** Settings of the compiler. */
export interface PolicyCompilerOptions {
  readonly clock?: Clock;
  /** How long numbers and cookies rest before reuse. */
  readonly restMs?: number;
  readonly state?: PolicyCompilerState;
  /** Numbers to begin above, when the kernel holds rows that `state` does not explain. */
  readonly above?: { readonly class?: number; readonly ruleset?: number; readonly cookie?: number };
  /** The classes of addresses in the kernel: those that `state` has lost keep their numbers. */
  readonly inKernel?: () => NumbersInKernel;
}

/** The compiler of one node. */
export interface PolicyCompiler {
  /** Takes changes and answers with what to write. Without changes it only ends the rest of old numbers and cookies. */
  update(changes: PolicyChanges): PolicyDelta;
  /** Everything that should be in the kernel now. */
  ports(): IterableIterator<PolicyPortRow>;
  peers(): IterableIterator<PolicyPeerRow>;
  ipcache(): IterableIterator<IpcacheRow>;
  cookies(): IterableIterator<CookieRow>;
  cookie(number: number): CookieRow | undefined;
  classes(): IterableIterator<ClassRow>;
  export(): PolicyCompilerState;
  /** Forgets all but the numbers, as after an update that threw: the next one must bring everything there is. */
  restart(): void;
}

const defaultRestMs = 10 * 60_000;

/** What must be compiled again for one identity and direction. */
interface Dirt {
  base: boolean;
  all: boolean;
  readonly peers: Set<PolicyClass>;
}

/** Makes a compiler that knows nothing yet. */
export function createPolicyCompiler(options: PolicyCompilerOptions = {}): PolicyCompiler {
  let compilation = createCompilation(options);
  return {
    update: (changes) => compilation.update(changes),
    ports: () => compilation.ports(),
    peers: () => compilation.peers(),
    ipcache: () => compilation.ipcache(),
    cookies: () => compilation.cookies(),
    cookie: (number) => compilation.cookie(number),
    classes: () => compilation.classes(),
    export: () => compilation.export(),
    restart() {
      compilation = createCompilation({ ...options, state: compilation.export() });
    },
  };
}

function createCompilation(options: PolicyCompilerOptions): Omit<PolicyCompiler, 'restart'> {
  const { clock = systemClock, restMs = defaultRestMs, state, above } = options;
  const numbering = (kind: keyof PolicyCompilerState, first: number) =>
    createNumbering({ clock, restMs, first, state: state?.[kind] });
  const classNumbers = numbering('classes', (above?.class ?? 0) + 1);
  const rulesetNumbers = numbering('rulesets', Math.max(above?.ruleset ?? 0, 1) + 1);
  const cookieNumbers = numbering('cookies', (above?.cookie ?? 0) + 1);

  const classes = createClasses(classNumbers, options.inKernel);
  const selectors = createSelectors();
  const rules = createRuleIndex(classes, selectors);
  const cookies = createCookies(cookieNumbers);
  const rulesets = createRulesets(rulesetNumbers, cookies);
  const peerRows = createPeerRows(rulesets);
  const pods = new Map<number, PodIdentity | undefined>();
  const namespaces = new Set<string>();
  const prefixes = new Set<string>();
  const localAddresses = new Map<number, number>();
  const touchedSubjects = new Set<number>();
  const bases = new Map<number, Partial<Record<Direction, SubjectBase>>>();
  const dirt = new Map<number, Record<Direction, Dirt>>();

  const policies = createLocalPolicies({
    ruleAdded: rules.add,
    ruleRemoved: rules.remove,
    ruleTouched(rule, subject) {
      const dirty = dirtOf(subject.identity, rule.direction);
      if (rule.peers === undefined) dirty.base = true;
      // Classes that the rule's blocks and port names are about to make will bring their own dirt.
      for (const peer of rules.classesOf(rule)) dirty.peers.add(peer);
    },
    isolationTouched(subject, direction) {
      dirtOf(subject.identity, direction).base = true;
    },
  });

  function dirtOf(identity: number, direction: Direction): Dirt {
    let both = dirt.get(identity);
    if (both === undefined) {
      const clean = (): Dirt => ({ base: false, all: false, peers: new Set() });
      both = { ingress: clean(), egress: clean() };
      dirt.set(identity, both);
    }
    return both[direction];
  }

  function touchRule(rule: CompiledRule, peers: Iterable<PolicyClass>): void {
    for (const subject of rule.policy.subjects) {
      const dirty = dirtOf(subject, rule.direction);
      for (const peer of peers) dirty.peers.add(peer);
    }
  }

  function touchSelection(changes: readonly SelectionChange[]): void {
    for (const { selector, identity } of changes) {
      const peers = classes.byIdentity(identity);
      if (peers.size > 0) for (const rule of selector.rules) touchRule(rule, peers);
    }
  }

  function setAddress(key: string, row: AddressRow | undefined): void {
    const before = classes.address(key);
    if (row === undefined) classes.deleteAddress(key);
    else if (!classes.setAddress(row)) return;
    countLocal(before, -1);
    countLocal(row, 1);
  }

  function countLocal(row: AddressRow | undefined, by: 1 | -1): void {
    if (!isLocal(row)) return;
    const { identity } = row;
    const count = (localAddresses.get(identity) ?? 0) + by;
    if (count > 0) localAddresses.set(identity, count);
    else localAddresses.delete(identity);
    touchedSubjects.add(identity);
  }

  function setIdentity(id: number, row: IdentityRow | undefined): void {
    if (row === undefined) pods.delete(id);
    else pods.set(id, podOfIdentity(row.labels));
    touchSelection(selectors.setIdentity(id, pods.get(id)));
    touchedSubjects.add(id);
  }

  function take(changes: PolicyChanges): void {
    applyChanges(
      changes.namespaces,
      () => namespaces,
      (name, row) => {
        if (row === undefined) namespaces.delete(name);
        else namespaces.add(name);
        touchSelection(selectors.setNamespace(name, row?.labels));
        policies.setNamespace(name, row?.labels);
      },
    );
    applyChanges(changes.identities, () => pods.keys(), setIdentity);
    applyChanges(
      changes.prefixes,
      () => prefixes,
      (cidr, row) => {
        if (row === undefined) prefixes.delete(cidr);
        else prefixes.add(cidr);
        if (row === undefined) classes.deletePrefix(cidr);
        else classes.setPrefix(row);
      },
    );
    applyChanges(changes.addresses, classes.addresses, setAddress);
    for (const identity of touchedSubjects) {
      if (!localAddresses.has(identity)) policies.deleteSubject(identity);
      else policies.setSubject(identity, identity === reservedIdentities.host ? 'node' : pods.get(identity));
    }
    touchedSubjects.clear();
    applyChanges(
      changes.policies,
      () => policies.keys(),
      (key, row) => {
        if (row === undefined) policies.delete(key);
        else policies.set(row);
      },
    );
  }

  function compileSubject(subject: Subject, direction: Direction, dirty: Dirt, cooked: Cooked): void {
    const locals = [...classes.byIdentity(subject.identity)].filter((candidate) => candidate.local.size > 0);
    const known = bases.get(subject.identity) ?? {};
    bases.set(subject.identity, known);
    const before = known[direction];
    const base = dirty.base || before === undefined ? baseOf(subject, direction, cookies) : before;
    known[direction] = base;
    // Where all rules are enforced and allow, nothing but the fallback denies.
    const denyMoved = base.denyCookie !== before?.denyCookie && deniesPeers(subject, direction);
    const all = dirty.all || denyMoved || reachesPeers(before, base) ? gather(subject, direction, cooked) : undefined;
    for (const local of locals) {
      const localBase = local.pending ? closedBase(cookies) : base;
      const recipes = recipesOf(localBase, direction, cooked);
      const ownPorts = direction === 'ingress' ? local.namedPorts : [];
      const fallback = localBase.open ? undefined : fallbackEntries(localBase, ownPorts, recipes);
      const write = (peer: PolicyClass, matching: readonly CompiledRule[]): void => {
        const ruling = local.pending ? [] : matching;
        const entries = fallback && peerEntries(local, peer, direction, localBase, fallback, ruling, recipes);
        peerRows.set(local.class, direction, peer.class, entries);
      };
      for (const number of all === undefined ? [] : peerRows.peersOf(local.class, direction)) {
        const peer = classes.byNumber(number);
        if (peer !== undefined && !all!.has(peer)) write(peer, []);
      }
      for (const [peer, matching] of all ?? []) write(peer, [...matching]);
      for (const peer of all === undefined ? dirty.peers : []) {
        if (classes.byNumber(peer.class) === peer) write(peer, concerning(subject, direction, rules.rulesOf(peer)));
      }
      peerRows.set(local.class, direction, 0, fallback ?? 'allow all');
    }
  }

  /** All peers that rules of the subject match, with those rules; and the node itself. */
  function gather(subject: Subject, direction: Direction, cooked: Cooked): Gathered {
    const key = `${direction} ${[...subject.policies]
      .map((policy) => policy.row.key)
      .sort()
      .join()}`;
    const known = cooked.gathered.get(key);
    if (known !== undefined) return known;
    const found = new Map<PolicyClass, Set<CompiledRule>>();
    cooked.gathered.set(key, found);
    for (const host of classes.byIdentity(reservedIdentities.host)) found.set(host, new Set());
    for (const policy of subject.policies) {
      for (const rule of policy.rules[direction]) {
        for (const peer of rules.classesOf(rule)) {
          const matching = found.get(peer);
          if (matching === undefined) found.set(peer, new Set([rule]));
          else matching.add(rule);
        }
      }
    }
    return found;
  }

  function fallbackEntries(base: SubjectBase, ownPorts: readonly NamedPort[], recipes: Recipes): readonly PortEntry[] {
    const recipe = `anybody ${portsText(ownPorts)}`;
    let entries = recipes.get(recipe);
    if (entries === undefined) {
      entries = portEntries(base.wildcards, ownPorts, base, cookies);
      recipes.set(recipe, entries);
    }
    return entries;
  }

  /** The entries for one peer; undefined when they say no more than the fallback does. */
  function peerEntries(
    local: PolicyClass,
    peer: PolicyClass,
    direction: Direction,
    base: SubjectBase,
    fallback: readonly PortEntry[],
    matching: readonly CompiledRule[],
    recipes: Recipes,
  ): readonly PortEntry[] | 'allow all' | undefined {
    const ownNode = direction === 'ingress' && peer.identity === reservedIdentities.host;
    const wildcards = ownNode ? base.wildcards.filter((rule) => !sparesOwnNode(rule, peer)) : base.wildcards;
    if (ownNode && matching.length + wildcards.length === 0) return 'allow all';
    if (!ownNode && matching.length === 0) return undefined;
    const namedPorts = direction === 'ingress' ? local.namedPorts : peer.namedPorts;
    // Rules for any peer are the same for all.
    const ids = matching.map((rule) => rule.id).sort((a, b) => a - b);
    const node = ownNode ? `node${peer.apiServer ? '+' : ''} ` : '';
    const recipe = `${node}${ids.join()} ${portsText(namedPorts)}`;
    let entries = recipes.get(recipe);
    if (entries === undefined) {
      const ruling = [...new Set([...matching, ...wildcards, ...(ownNode ? [nodeRule] : [])])];
      // What spares the node stands in the rows for everybody: its own leave nothing to them.
      const spared = wildcards.length < base.wildcards.length;
      entries = portEntries(ruling, namedPorts, base, cookies, spared ? undefined : fallback);
      recipes.set(recipe, entries);
    }
    return entries.length === 0 ? undefined : entries;
  }

  /** Pods that policies leave open move first, isolated ones last: neither then meets peers that are still to move. */
  function moveOrder({ class: number }: IpcacheRow): number {
    const of = classes.byNumber(number);
    if (of === undefined || of.local.size === 0) return 1;
    const base = bases.get(of.identity);
    return base?.ingress?.open && base.egress?.open && !of.pending ? 0 : 2;
  }

  function update(changes: PolicyChanges): PolicyDelta {
    take(changes);
    const sorted = classes.sort();
    for (const peer of sorted.added) {
      for (const rule of rules.rulesOf(peer)) touchRule(rule, [peer]);
      if (peer.identity !== reservedIdentities.host) continue;
      for (const { identity } of policies.subjects()) dirtOf(identity, 'ingress').peers.add(peer);
    }
    const owners: [number, string][] = [];
    for (const { class: number, identity, local } of sorted.localChanged) {
      if (local.size > 0) owners.push([number, pods.get(identity)?.namespace ?? '']);
      if (local.size === 0) peerRows.deleteSubject(number);
      else for (const direction of directions) dirtOf(identity, direction).all = true;
    }
    for (const { class: number } of sorted.removed) {
      peerRows.deleteSubject(number);
      peerRows.deletePeer(number);
    }
    const cooked: Cooked = { recipes: new Map(), gathered: new Map() };
    for (const [identity, both] of dirt) {
      const subject = policies.subject(identity);
      if (subject === undefined) bases.delete(identity);
      else for (const direction of directions) compileSubject(subject, direction, both[direction], cooked);
    }
    dirt.clear();
    sorted.ipcacheUpsert.sort((a, b) => moveOrder(a) - moveOrder(b));
    classNumbers.sweep();
    const peers = peerRows.settle();
    const { owners: rulesetOwners, ...ports } = rulesets.settle();
    const subjects = new Set([...peers.upsert, ...peers.close, ...peers.delete].map((row) => row.subject));
    return {
      cookies: cookies.settle(),
      ports,
      peers,
      ipcache: { upsert: sorted.ipcacheUpsert, delete: sorted.ipcacheDelete },
      classes: { upsert: sorted.added.map(classRow), delete: sorted.removed.map((gone) => gone.class) },
      owners,
      rulesetOwners,
      subjects: [...subjects].flatMap((number) => [...(classes.byNumber(number)?.local ?? [])]),
    };
  }

  return {
    update,
    ports: rulesets.rows,
    peers: peerRows.rows,
    ipcache: classes.ipcache,
    cookies: cookies.rows,
    cookie: cookies.get,
    *classes() {
      for (const one of classes.all()) yield classRow(one);
    },
    export: () => ({
      classes: classNumbers.export(),
      rulesets: rulesetNumbers.export(),
      cookies: cookieNumbers.export(),
    }),
  };
}

/** Entries by what they were made from. */
type Recipes = Map<string, readonly PortEntry[]>;
type Gathered = ReadonlyMap<PolicyClass, ReadonlySet<CompiledRule>>;
/** What one round has made, for subjects with the same policies: recipes by what is the same for all peers, and the peers. */
interface Cooked {
  readonly recipes: Map<string, Recipes>;
  readonly gathered: Map<string, Gathered>;
}

function recipesOf(base: SubjectBase, direction: Direction, cooked: Cooked): Recipes {
  const { enforced, staged, anyStaged, denyCookie, wildcards } = base;
  const ids = wildcards.map((rule) => rule.id).sort((a, b) => a - b);
  const key = `${direction} ${enforced} ${staged} ${anyStaged} ${denyCookie} ${ids.join()}`;
  let recipes = cooked.recipes.get(key);
  if (recipes === undefined) {
    recipes = new Map();
    cooked.recipes.set(key, recipes);
  }
  return recipes;
}

function portsText(ports: readonly NamedPort[]): string {
  return ports.map(({ name, protocol, port }) => `${name}/${protocol}=${port}`).join();
}

function concerning(subject: Subject, direction: Direction, rules: Iterable<CompiledRule>): CompiledRule[] {
  const found: CompiledRule[] = [];
  for (const rule of rules) {
    if (rule.direction === direction && rule.policy.subjects.has(subject.identity)) found.push(rule);
  }
  return found;
}

/** Whether rows of single peers may hold the default deny. */
function deniesPeers(subject: Subject, direction: Direction): boolean {
  for (const { row, rules } of subject.policies) {
    if (row.staged || rules[direction].some((rule) => rule.action !== 'allow' || rule.tier !== 'normal')) return true;
  }
  return false;
}

/** A node may reach its own pods unless a rule denies it: probes of the kubelet must not depend on who is allowed. */
const nodeRule: CompiledRule = {
  id: 0,
  policy: undefined as never,
  direction: 'ingress',
  staged: false,
  tier: 'normal',
  action: 'allow',
  rank: '',
  origin: undefined as never,
  originKey: '',
  peers: undefined,
  sparesOwnNode: undefined,
  prefixes: [anything],
  portNames: [],
};

function classRow({ class: number, identity, apiServer, prefixes, namedPorts }: PolicyClass): ClassRow {
  return { class: number, identity, ...(apiServer && { apiServer }), prefixes, namedPorts };
}
