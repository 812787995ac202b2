// From policy objects to what the compiler takes: whether each is enforced or staged, which of the policies for nodes
// are about this one, and who is meant by names that somebody else defines (groups of blocks, services, nodes).
import { labelCounts } from '../../core/identity.ts';
import { formatCidr, hostCidr, parseAddress } from '../../core/ip.ts';
import { everything, type LabelMap, type LabelSelector, selectorMatches } from '../../core/labels.ts';
import {
  type CidrGroupRow,
  type Direction,
  type PolicyObjectRow,
  type PolicyPeer,
  type PolicyRow,
  type PolicyRule,
  type PolicyServiceRow,
  policyKey,
  type WrittenPeer,
} from '../../core/rows.ts';
import { closedRowsOfPolicy, closeSpec, overPolicyLimit, peersBeyondLimits } from './policy-limits.ts';
import { inNamespace, problemText } from './policy-reader.ts';

/** What policies refer to. */
export interface PolicyContext {
  /** Policies that do not say whether they are enforced are staged. */
  readonly clusterStaged: boolean;
  /** The same for those in one namespace; undefined leaves it to the cluster. */
  namespaceStaged(namespace: string): boolean | undefined;
  /** The labels of this node; undefined while they are not known. */
  readonly nodeLabels: LabelMap | undefined;
  nodes(): Iterable<{ readonly labels?: LabelMap; readonly addresses: readonly string[] }>;
  cidrGroups(): Iterable<CidrGroupRow>;
  services(): Iterable<PolicyServiceRow>;
  /** The label keys that identities leave out, where they are not the usual ones. */
  readonly ignoredLabels?: readonly string[];
}

/** A context in which nothing is defined: for policies that refer to nothing. */
export const emptyContext: PolicyContext = {
  clusterStaged: false,
  namespaceStaged: () => undefined,
  nodeLabels: undefined,
  nodes: () => [],
  cidrGroups: () => [],
  services: () => [],
};

/**
 * The rows of an object, one for each of its specs that is about pods or about this node. `refused` says why it is to be
 * closed although it is understood; with what it refers to filled in it may be over a limit by itself.
 */
export function resolvePolicy(object: PolicyObjectRow, context: PolicyContext, refused?: string): PolicyRow[] {
  if (refused !== undefined) return closedRows(object, context, refused);
  const rows = rowsOf(object, context);
  if (object.error !== undefined) return mergeClosed(rows);
  const error = overPolicyLimit(object, rows) ?? holeInDenial(object, context);
  return error === undefined ? rows : closedRows(object, context, error);
}

/** A block that cannot be read is left out of its group: harmless where the group is allowed, a hole where it is denied. */
function holeInDenial({ specs }: PolicyObjectRow, context: PolicyContext): string | undefined {
  for (const { ingress, egress } of specs) {
    for (const { action, peers } of [...ingress, ...egress]) {
      if (action !== 'deny') continue;
      for (const peer of peers ?? []) {
        const bad = groupsOf(peer, context).find((group) => group.problems.length > 0);
        if (bad !== undefined) return `denies the CiliumCIDRGroup ${bad.name}, whose ${problemText(bad.problems)}`;
      }
    }
  }
  return undefined;
}

function groupsOf(peer: WrittenPeer, context: PolicyContext): CidrGroupRow[] {
  if (peer.kind === 'cidr-group') return [...context.cidrGroups()].filter((group) => group.name === peer.name);
  if (peer.kind === 'cidr-groups')
    return [...context.cidrGroups()].filter((group) => selectorMatches(peer.selector, group.labels));
  return [];
}

function closedRows(object: PolicyObjectRow, context: PolicyContext, error: string): PolicyRow[] {
  const closed = { ...object, specs: object.specs.map(closeSpec) };
  return mergeClosed(rowsOf(closed, context)).map((row) => ({ ...row, error }));
}

/**
 * Specs of a closed policy that say the same are one row. One of a namespace that has more than so many still is one row for
 * all pods of it: it closes more, and costs nobody else anything.
 */
function mergeClosed(rows: readonly PolicyRow[]): PolicyRow[] {
  const first = new Map<string, PolicyRow>();
  for (const row of rows) {
    const text = JSON.stringify([row.subject, row.ingress, row.egress]);
    if (!first.has(text)) first.set(text, row);
  }
  const merged = [...first.values()];
  const [one] = merged;
  if (one === undefined || one.namespace === '' || merged.length <= closedRowsOfPolicy) return merged;
  const denials = (direction: Direction): PolicyRule[] => {
    const denying = merged.flatMap((row) => row[direction]);
    // The own node is spared where all of them spare it.
    return denying.toSorted((a, b) => sparing(a) - sparing(b)).slice(0, 1);
  };
  const { spec: _, ...whole } = one;
  return [
    {
      ...whole,
      key: policyKey(one.kind, one.namespace, one.name),
      subject: { kind: 'endpoints', selector: inNamespace(everything, one.namespace) },
      ingress: denials('ingress'),
      egress: denials('egress'),
    },
  ];
}

function sparing({ sparesOwnNode: spared }: PolicyRule): number {
  return spared === undefined ? 0 : spared === 'unless-api-server' ? 1 : 2;
}

function rowsOf(object: PolicyObjectRow, context: PolicyContext): PolicyRow[] {
  const staged = isStaged(object, context);
  let filledIn = 0;
  const remarks = remarksOf(object, context);
  return object.specs.flatMap(({ nodeSelector, ...spec }) => {
    if (nodeSelector !== undefined && !selectsThisNode(nodeSelector, context)) return [];
    const rules = (list: readonly PolicyRule<WrittenPeer>[]): PolicyRule[] =>
      list.map((rule) => {
        const { peers, ...rest } = rule;
        if (peers === undefined) return rest;
        const denies = rule.action === 'deny';
        const resolved = peers.flatMap((peer) => {
          // It is over its limit already: the rest would only take memory.
          if (filledIn > peersBeyondLimits) return [];
          const found = resolvePeer(peer, context, denies);
          filledIn += found.length;
          return found;
        });
        return { ...rest, peers: resolved };
      });
    return [
      {
        ...spec,
        staged,
        ingress: rules(spec.ingress),
        egress: rules(spec.egress),
        ...(remarks.length > 0 && { remarks }),
      },
    ];
  });
}

/** What rules mean beside what they say, by the services that they name. */
function remarksOf({ specs }: PolicyObjectRow, context: PolicyContext): string[] {
  const found = new Set<string>();
  specs.forEach(({ ingress, egress }, i) => {
    const spec = specs.length === 1 ? 'spec' : `specs[${i}]`;
    for (const { list, index, action, peers } of [...ingress, ...egress]) {
      if (action !== 'deny') continue;
      for (const peer of peers ?? []) {
        for (const { key, selector } of servicesOf(peer, context)) {
          const odd = Object.keys(selector ?? {}).filter((each) => !labelCounts(each, context.ignoredLabels));
          if (odd.length === 0) continue;
          const text = `denies the service ${key}, which selects by ${odd.join(', ')}: the label is not part of identities, so that all pods with its other labels are denied`;
          found.add(`${spec}.${list}[${index}].toServices ${text}`);
        }
      }
    }
  });
  return [...found];
}

function servicesOf(peer: WrittenPeer, context: PolicyContext): PolicyServiceRow[] {
  if (peer.kind !== 'service' && peer.kind !== 'services') return [];
  return [...context.services()].filter(({ namespace, name, labels }) => {
    if ((peer.namespace ?? namespace) !== namespace) return false;
    return peer.kind === 'service' ? peer.name === name : selectorMatches(peer.selector, labels);
  });
}

/** Whether a policy is reported only: it may say so itself, else its namespace or the cluster does. */
function isStaged({ enforcement, namespace }: PolicyObjectRow, context: PolicyContext): boolean {
  if (enforcement !== 'default') return enforcement === 'staged';
  return (namespace === '' ? undefined : context.namespaceStaged(namespace)) ?? context.clusterStaged;
}

/** A node whose labels are not known yet is not selected; they come before anything is written. */
function selectsThisNode(selector: LabelSelector, { nodeLabels }: PolicyContext): boolean {
  return nodeLabels !== undefined && selectorMatches(selector, nodeLabels);
}

function resolvePeer(peer: WrittenPeer, context: PolicyContext, denies: boolean): PolicyPeer[] {
  switch (peer.kind) {
    case 'endpoints':
    case 'reserved':
    case 'block':
      return [peer];
    case 'cidr-group':
    case 'cidr-groups':
      return groupPeers(groupsOf(peer, context), peer.except);
    case 'nodes':
      return [...context.nodes()]
        .filter((node) => selectorMatches(peer.selector, node.labels ?? {}))
        .flatMap((node) => node.addresses.flatMap((address) => addressPeer(address, 'any')));
    case 'service':
    case 'services':
      return servicesOf(peer, context).flatMap((service) => servicePeers(service, denies, context));
  }
}

function groupPeers(groups: readonly CidrGroupRow[], except: readonly string[]): PolicyPeer[] {
  return groups.flatMap(({ cidrs }) =>
    cidrs.map((cidr): PolicyPeer => ({ kind: 'block', cidr, except, reach: 'outside' })),
  );
}

/**
 * A service with a selector stands for the pods it selects; one without, for the addresses that its endpoints have. By
 * labels that do not count pods cannot be told apart: a rule that allows means the endpoints then. One that denies means all
 * pods with the other labels, because an endpoint is known only when its pod has run for a moment.
 */
function servicePeers(
  { namespace, selector, addresses }: PolicyServiceRow,
  denies: boolean,
  { ignoredLabels }: PolicyContext,
): PolicyPeer[] {
  if (selector === undefined) return addresses.flatMap((address) => addressPeer(address, 'not-pods'));
  const counting = Object.entries(selector).filter(([key]) => labelCounts(key, ignoredLabels));
  if (!denies && counting.length < Object.keys(selector).length) {
    return addresses.flatMap((address) => addressPeer(address, 'any'));
  }
  const matchLabels = Object.fromEntries(counting);
  return [{ kind: 'endpoints', selector: inNamespace({ matchLabels, matchExpressions: [] }, namespace) }];
}

function addressPeer(text: string, reach: 'any' | 'not-pods'): PolicyPeer[] {
  const parsed = parseAddress(text);
  return parsed.ok ? [{ kind: 'block', cidr: formatCidr(hostCidr(parsed.value)), except: [], reach }] : [];
}

/** What a policy object refers to, so that only what may have changed is resolved again. */
export function referencesOf(object: PolicyObjectRow): ReadonlySet<'cidr-groups' | 'nodes' | 'services'> {
  const found = new Set<'cidr-groups' | 'nodes' | 'services'>();
  for (const { nodeSelector, ingress, egress } of object.specs) {
    if (nodeSelector !== undefined) found.add('nodes');
    for (const { peers } of [...ingress, ...egress]) {
      for (const { kind } of peers ?? []) {
        if (kind === 'nodes') found.add('nodes');
        else if (kind === 'cidr-group' || kind === 'cidr-groups') found.add('cidr-groups');
        else if (kind === 'service' || kind === 'services') found.add('services');
      }
    }
  }
  return found;
}
