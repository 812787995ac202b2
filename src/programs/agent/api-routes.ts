// What the local API answers. Shapes are for `weir ... -o json`, so names are stable and units are in them.
import { WeirError } from '../../core/errors.ts';
import { reservedIdentityRows } from '../../core/identity.ts';
import { canonicalIp } from '../../core/ip.ts';
import type { EndpointRow, IdentityRow } from '../../core/rows.ts';
import { datapathMaps, dropReasons } from '../../kernel/datapath.gen.ts';
import { typedMap } from '../../kernel/typed-map.ts';
import type { Agent } from './agent.ts';
import { type ConnectionFilter, conntrackEntries } from './conntrack-entries.ts';
import { hostFirewallOf } from './host-firewall-view.ts';
import type { ApiHandler } from './local-api.ts';
import { natEntries } from './nat-entries.ts';
import { effectivePolicy, policiesOf } from './policy-view.ts';
import { nodePolicyModel, policyWhy } from './policy-why.ts';
import { createWhy, serviceOf, servicesOf, setMaintenance } from './services-view.ts';
import { healthOf, statusOf } from './status-view.ts';

/** An endpoint as the API shows it; `policy` only when one is asked for. */
export interface EndpointView extends EndpointRow {
  readonly node: string;
  readonly identityLabels: readonly string[];
}

/** GET handlers by path. */
export function apiRoutes(agent: Agent): Record<string, ApiHandler> {
  const { datapath, compiler, endpoints, sources, addresses } = agent;
  const drops = typedMap(datapath.map('drops'), datapathMaps.drops);

  return {
    '/v1/health': () => healthOf(agent),
    '/v1/status': () => statusOf(agent),
    '/v1/sync': () => ({ synced: agent.sync.synced, pending: agent.sync.pending, passes: agent.sync.passes }),
    '/v1/endpoints': () => [...endpoints.rows()].map(endpointView),
    '/v1/endpoints/': (_, id) => {
      const row = /^\d+$/.test(id) ? endpoints.get(Number(id)) : endpoints.by('pod', id)[0];
      return row && { ...endpointView(row), policy: effectivePolicy(agent, row, labelsOf) };
    },
    '/v1/identities': (): IdentityRow[] =>
      [...reservedIdentityRows(), ...sources.identities.rows()].sort((a, b) => a.id - b.id),
    '/v1/policies': () => policiesOf(agent),
    '/v1/policy-why': (query) => policyWhy(agent, query),
    '/v1/host-firewall': () => hostFirewallOf(agent),
    '/v1/policy-model': () => nodePolicyModel(agent),
    '/v1/nodes': () => [...sources.nodes.rows()],
    '/v1/addresses': () =>
      [...compiler.ipcache()].map((row) => ({ ...row, ...addressView(row.address), labels: labelsOf(row.identity) })),
    '/v1/announcements': () => agent.announcing?.status() ?? [],
    '/v1/conntrack': (query) => conntrackEntries(datapath, connectionQuery(query)),
    '/v1/services': () => servicesOf(agent),
    '/v1/services/': (_, key) => serviceOf(agent, key),
    '/v1/service-why': createWhy(agent),
    '/v1/maintenance': () => agent.services.maintenance.rows(),
    '/v1/nat': (query) => natEntries(agent, connectionQuery(query).limit),
    '/v1/drops': () =>
      drops
        .entriesPerCpu()
        .map(({ key, values }) => ({
          number: key,
          packets: Number(values.reduce((sum, each) => sum + each.packets, 0n)),
          bytes: Number(values.reduce((sum, each) => sum + each.bytes, 0n)),
        }))
        .filter((row) => row.packets > 0)
        .map((row) => {
          const reason = dropReasons.find((each) => each.number === row.number);
          return {
            reason: reason?.name ?? String(row.number),
            ...row,
            meaning: reason?.meaning ?? 'unknown',
            action: reason?.action ?? '',
          };
        })
        .sort((a, b) => b.packets - a.packets),
  };

  function endpointView(row: EndpointRow): EndpointView {
    return { ...row, node: agent.settings.nodeName, identityLabels: labelsOf(row.identity) };
  }

  function labelsOf(identity: number): readonly string[] {
    return (
      sources.identities.get(identity)?.labels ??
      reservedIdentityRows().find((row) => row.id === identity)?.labels ??
      []
    );
  }

  function addressView(address: string) {
    const row = addresses.get(address);
    return row === undefined ? {} : { kind: row.kind, namespace: row.namespace, pod: row.pod, node: row.node };
  }
}

/** POST handlers by path: what changes something. */
export function apiActions(agent: Agent): Record<string, ApiHandler> {
  return { '/v1/maintenance': (query) => setMaintenance(agent, query) };
}

/** The filter that a query names. Throws CONFIG_INVALID for what it cannot read. */
export function connectionQuery(query: URLSearchParams): ConnectionFilter & { limit: number } {
  const whole = (name: string, most: number): number | undefined => {
    const text = query.get(name);
    if (text === null) return undefined;
    const value = Number(text);
    if (text === '' || !Number.isInteger(value) || value < 0 || value > most)
      throw new WeirError('CONFIG_INVALID', `${name}=${text} is not a whole number from 0 to ${most}`);
    return value;
  };
  const ip = query.get('ip') ?? undefined;
  const canonical = ip === undefined ? undefined : canonicalIp(ip);
  if (ip !== undefined && (canonical === undefined || ip.includes('/')))
    throw new WeirError('CONFIG_INVALID', `ip=${ip} is not an address`);
  return {
    ip: canonical,
    port: whole('port', 65_535),
    protocol: whole('protocol', 255),
    state: query.get('state') ?? undefined,
    verdict: query.get('verdict') ?? undefined,
    limit: whole('limit', 10_000_000) ?? 1000,
  };
}
