// Keeps the table of compiled policies' rows in step with policy objects and with what they refer to. Cost follows the
// change: an object is resolved again when it changes, or something of a kind that it refers to.

import { type Derivation, derive } from '../../core/derive.ts';
import { deepEqual } from '../../core/equal.ts';
import type {
  CidrGroupRow,
  NamespaceRow,
  NodeRow,
  PolicyObjectRow,
  PolicyRow,
  PolicyServiceRow,
} from '../../core/rows.ts';
import type { ReadTable, Table } from '../../core/table.ts';
import { essentialKey, essentialPolicy } from './essential-traffic.ts';
import { overNamespaceLimit } from './policy-limits.ts';
import { type PolicyContext, referencesOf, resolvePolicy } from './resolve-policy.ts';

/** Where policies and what they refer to come from. */
export interface PolicyObjectSources {
  readonly objects: ReadTable<PolicyObjectRow>;
  readonly namespaces: ReadTable<NamespaceRow>;
  readonly nodes: ReadTable<NodeRow>;
  readonly cidrGroups: ReadTable<CidrGroupRow>;
  readonly services: ReadTable<PolicyServiceRow>;
}

/** Settings of the resolution. */
export interface PolicyResolutionOptions {
  readonly nodeName: string;
  /** Policies are staged unless they or their namespace say otherwise. */
  readonly clusterStaged: boolean;
  readonly ignoredLabels?: readonly string[];
  /** Where the host firewall is on: where this node looks for the API server. What is essential stays open for it. */
  readonly essential?: EssentialSources;
}

/** What is open for a node whatever its policies say, beside what nodes tell of themselves. */
export interface EssentialSources {
  readonly apiServers: readonly string[];
  readonly healthCheckPorts: ReadTable<{ readonly port: number }>;
}

function contextOf(sources: PolicyObjectSources, options: PolicyResolutionOptions): PolicyContext {
  return {
    clusterStaged: options.clusterStaged,
    ...(options.ignoredLabels && { ignoredLabels: options.ignoredLabels }),
    namespaceStaged: (name) => sources.namespaces.get(name)?.staged,
    get nodeLabels() {
      const node = sources.nodes.get(options.nodeName);
      return node && (node.labels ?? {});
    },
    nodes: () => sources.nodes.rows(),
    cidrGroups: () => sources.cidrGroups.rows(),
    services: () => sources.services.rows(),
  };
}

/** Keeps `to` derived. */
export function resolvePolicies(
  sources: PolicyObjectSources,
  to: Table<PolicyRow>,
  options: PolicyResolutionOptions,
): Derivation {
  const { objects, namespaces, nodes, cidrGroups, services } = sources;
  const context = contextOf(sources, options);
  /** What each object asks for by itself, all that it refers to filled in: so it counts in its namespace. */
  const alone = new Map<string, readonly PolicyRow[]>();
  /** The rows that each object has become. */
  const rowsOf = new Map<string, readonly PolicyRow[]>();
  const staging = new Map<string, boolean | undefined>();
  /** The objects of each namespace and kind, and those over the limit with what is wrong. */
  const groups = new Map<string, Set<string>>();
  const refused = new Map<string, ReadonlyMap<string, string>>();
  const groupOf = new Map<string, string>();

  /** Takes an object as it is now; gives the group in which it counts. */
  function regroup(key: string): string | undefined {
    const object = objects.get(key);
    const before = groupOf.get(key);
    const now = object === undefined || object.namespace === '' ? undefined : `${object.kind}/${object.namespace}`;
    const group = before ?? now;
    if (group === undefined || before === now) return group;
    const keys = groups.get(group) ?? new Set();
    if (now === undefined) {
      keys.delete(key);
      groupOf.delete(key);
    } else {
      keys.add(key);
      groupOf.set(key, now);
    }
    if (keys.size === 0) groups.delete(group);
    else groups.set(group, keys);
    return group;
  }

  /** Decides anew who is over the limit in a group; gives those for whom that is news. */
  function refuse(group: string): string[] {
    const before = refused.get(group) ?? new Map<string, string>();
    const members = [...(groups.get(group) ?? [])].map((key) => {
      const { created, kind, namespace } = objects.get(key)!;
      return { key, kind, namespace, ...(created !== undefined && { created }), specs: alone.get(key)! };
    });
    const now = overNamespaceLimit(members);
    if (now.size === 0) refused.delete(group);
    else refused.set(group, now);
    return [...new Set([...before.keys(), ...now.keys()])].filter((key) => before.get(key) !== now.get(key));
  }

  function essentialRows(): readonly PolicyRow[] {
    const own = nodes.get(options.nodeName);
    if (own === undefined || options.essential === undefined) return [];
    const { labels = {}, podCidrs } = own;
    const healthCheckPorts = [...options.essential.healthCheckPorts.rows()].map((row) => row.port);
    const { apiServers } = options.essential;
    return [essentialPolicy({ nodeLabels: labels, podCidrs, apiServers, healthCheckPorts })];
  }

  return derive({
    name: 'policies',
    from: [objects, namespaces, nodes, cidrGroups, services, options.essential?.healthCheckPorts ?? services],
    to,
    compute([changedObjects, changedNamespaces, changedNodes, changedGroups, changedServices, changedPorts]) {
      const dirty = new Set<string>();
      const all = changedObjects.resync;
      for (const { key } of changedObjects.changes) dirty.add(String(key));
      const moved = (name: string): boolean => {
        const now = namespaces.get(name)?.staged;
        const before = staging.get(name);
        staging.set(name, now);
        return now !== before;
      };
      const restaged = new Set<string>();
      const names = changedNamespaces.resync
        ? [...namespaces.rows()].map((row) => row.name)
        : changedNamespaces.changes.map((change) => String(change.key));
      for (const name of names) if (moved(name)) restaged.add(name);
      const touched = {
        nodes: changedNodes.changes.length > 0 || changedNodes.resync,
        'cidr-groups': changedGroups.changes.length > 0 || changedGroups.resync,
        services: changedServices.changes.length > 0 || changedServices.resync,
      };
      if (all || restaged.size > 0 || Object.values(touched).some(Boolean)) {
        for (const object of objects.rows()) {
          if (all || restaged.has(object.namespace)) dirty.add(object.key);
          else for (const kind of referencesOf(object)) if (touched[kind]) dirty.add(object.key);
        }
      }
      if (all) for (const key of rowsOf.keys()) dirty.add(key);
      if (touched.nodes || changedPorts.changes.length > 0) dirty.add(essentialKey);

      for (const key of dirty) {
        const object = objects.get(key);
        if (object === undefined) alone.delete(key);
        else alone.set(key, resolvePolicy(object, context));
      }
      const regrouped = new Set([...dirty].flatMap((key) => regroup(key) ?? []));
      for (const group of regrouped) for (const key of refuse(group)) dirty.add(key);

      const upsert: PolicyRow[] = [];
      const gone: string[] = [];
      for (const key of dirty) {
        const object = objects.get(key);
        const why = refused.get(groupOf.get(key) ?? '')?.get(key);
        const rows =
          key === essentialKey
            ? essentialRows()
            : object === undefined
              ? []
              : why === undefined
                ? alone.get(key)!
                : resolvePolicy(object, context, why);
        const before = new Map((rowsOf.get(key) ?? []).map((row) => [row.key, row]));
        for (const row of rows) {
          if (!deepEqual(before.get(row.key), row)) upsert.push(row);
          before.delete(row.key);
        }
        gone.push(...before.keys());
        if (rows.length === 0) rowsOf.delete(key);
        else rowsOf.set(key, rows);
      }
      return { upsert, delete: gone };
    },
  });
}
