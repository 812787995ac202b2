// What is odd about policies seen with the pods they are for: selectors that select nobody, port names that nobody has,
// names that cannot be asked for, rules that let in who cannot get out.
import { metaLabels, namespaceLabel, reservedIdentities } from '../../../core/identity.ts';
import { type Cidr, cidrContains, parseAddress, parseCidr } from '../../../core/ip.ts';
import type { LabelSelector } from '../../../core/labels.ts';
import type { PolicyPeer, PolicyRow, PolicyRule } from '../../../core/rows.ts';
import { createEndSets } from '../diff/end-sets.ts';
import { type End, endsOf } from '../diff/ends.ts';
import { serviceOf, spansOf } from '../diff/port-space.ts';
import { evaluateParties, type Party, type PolicyModel, partyOf } from '../evaluate.ts';
import { selectorText, serviceText } from '../explain.ts';
import type { OfflineModel, OfflinePolicy } from '../manifests/offline-model.ts';
import { type Finding, findingAt } from './findings.ts';
import { rulePath, specPath } from './rule-path.ts';

const maxPairs = 400;

/**
 * All findings that need pods. Where pods were `madeUp` from the selectors, only those that can be told all the same; where
 * they are not the `whole` cluster, a namespace without any is no reason to say that a policy selects nobody.
 */
export function lintCluster(
  offline: OfflineModel,
  { madeUp, whole }: { readonly madeUp: boolean; readonly whole: boolean },
): Finding[] {
  const { model, policies, pods } = offline;
  const findings: Finding[] = [];
  const podBlocks = blocksOfPods(offline);
  for (const policy of policies) {
    if (policy.problems.length > 0) continue;
    for (const { row, rule } of rulesOf(policy)) {
      for (const peer of rule.peers ?? []) findings.push(...blockFinding(policy, row, rule, peer, podBlocks));
    }
  }

  const ends = endsOf([model]);
  const sets = createEndSets(ends, model.namespaces);
  const selected = new Map(model.policies.map((row) => [row, sets.selectedBy(row)]));
  const policiesOf: PolicyRow[][] = ends.map(() => []);
  for (const [row, found] of selected) for (const end of found) policiesOf[end]!.push(row);
  const judge = (source: number, destination: Party, protocol: number, port: number) =>
    evaluateParties({ ...model, policies: policiesOf[source]! }, ends[source]!.party, destination, { protocol, port });
  const dns = dnsServers(model, ends);
  const apiServers = apiServerParties(ends);
  const told = new Set<string>();
  const inhabited = new Set(pods.map((pod) => pod.namespace));

  for (const policy of policies) {
    if (policy.problems.length > 0) continue;
    for (const row of policy.rows) {
      const own = selected.get(row) ?? sets.selectedBy(row);
      const at = specPath(policy, row);
      const tell = (code: Finding['code'], path: string, message: string) =>
        findings.push(findingAt(policy.manifest, code, path, message));
      const telling = !madeUp && (whole || row.namespace === '' || inhabited.has(row.namespace));
      if (row.subject.kind === 'endpoints' && own.length === 0 && telling) {
        const where =
          row.kind === 'ClusterNetworkPolicy'
            ? 'subject'
            : row.kind === 'NetworkPolicy'
              ? 'podSelector'
              : 'endpointSelector';
        tell('SELECTS_NOBODY', `${at}.${where}`, `selects nobody: ${selectorText(row.subject.selector)}`);
      }
      if (row.isolates.egress && row.subject.kind === 'endpoints') {
        const named = (end: number): string => ends[end]!.name;
        const once = (code: Finding['code'], end: number | undefined, what: string): void => {
          if (end === undefined || told.has(`${code} ${end}`)) return;
          told.add(`${code} ${end}`);
          tell(code, `${at}.egress`, `isolates ${named(end)}, which nothing lets ${what}`);
        };
        const cut = own.find((end) => !dns.some((party) => judge(end, party, 17, 53).egress.allowed));
        once('DNS_CUT', cut, 'ask for names');
        const alone = own.find(
          (end) =>
            hasOwnAccount(ends[end]!) &&
            !apiServers.some((party) => [443, 6443].some((port) => judge(end, party, 6, port).egress.allowed)),
        );
        once('API_SERVER_CUT', alone, 'reach the API server');
      }
      if (madeUp) continue;
      for (const [direction, rules] of [
        ['ingress', row.ingress],
        ['egress', row.egress],
      ] as const) {
        for (const rule of rules) {
          const path = rulePath(policy, row, rule);
          const peers = rule.peers?.map((peer) => sets.matching(peer));
          for (const [i, peer] of (rule.peers ?? []).entries()) {
            if (peer.kind !== 'endpoints' || peers![i]!.length > 0 || !isKnown(peer.selector, inhabited)) continue;
            tell('PEER_IS_NOBODY', path, `means nobody by ${selectorText(peer.selector)}`);
          }
          const destinations = direction === 'ingress' ? own : (peers?.flat() ?? ends.keys().toArray());
          for (const port of rule.ports ?? []) {
            if (port.kind !== 'named' || destinations.length === 0) continue;
            const known = destinations.some((end) =>
              ends[end]!.party.namedPorts.some((each) => each.name === port.name && each.protocol === port.protocol),
            );
            const others = rule.ports!.some(
              (each) => each !== port && each.kind === 'named' && each.name === port.name,
            );
            if (!known && !others)
              tell('PORT_NAME_UNKNOWN', path, `no pod that it is about has a port named ${port.name}`);
          }
          const lets = direction === 'ingress' && rule.action === 'allow' && row.tier === 'normal' && !row.staged;
          // Of a rule for any port it cannot be said which one was meant to work.
          if (lets && peers !== undefined && rule.ports !== undefined) {
            const missing = egressMissing(rule, own, [...new Set(peers.flat())], ends, judge);
            if (missing !== undefined) tell('EGRESS_MISSING', path, missing);
          }
        }
      }
    }
  }
  return findings;
}

/** Of a namespace without any known pod nothing can be said: most people give the manifests of their own alone. */
function isKnown({ matchLabels }: LabelSelector, inhabited: ReadonlySet<string>): boolean {
  const name = matchLabels[metaLabels.namespace] ?? matchLabels[namespaceLabel('kubernetes.io/metadata.name')];
  return name === undefined || inhabited.has(name);
}

function rulesOf(policy: OfflinePolicy): { row: PolicyRow; rule: PolicyRule }[] {
  return policy.rows.flatMap((row) => [...row.ingress, ...row.egress].map((rule) => ({ row, rule })));
}

type Judge = (source: number, destination: Party, protocol: number, port: number) => ReturnType<typeof evaluateParties>;

/** The first pair that a rule lets in and the other side does not let out. */
function egressMissing(
  rule: PolicyRule,
  subjects: readonly number[],
  peers: readonly number[],
  ends: readonly End[],
  judge: Judge,
): string | undefined {
  let pairs = 0;
  for (const peer of peers) {
    if (!ends[peer]!.party.isPod) continue;
    for (const subject of subjects) {
      if (peer === subject) continue;
      if (++pairs > maxPairs) return undefined;
      const { party, name } = ends[subject]!;
      const [span] = spansOf(rule.ports, party.namedPorts);
      if (span === undefined) continue;
      const service = serviceOf(span[0]);
      const { protocol, port } = service.port === 0 && service.protocol !== 1 ? { ...service, port: 80 } : service;
      if (judge(peer, party, protocol, port).egress.allowed) continue;
      return `lets ${ends[peer]!.name} reach ${name} at ${serviceText({ protocol, port })}, which its own policies do not let out`;
    }
  }
  return undefined;
}

/** Who answers questions about names: the pods of kube-dns, one made up where none is known; their node; the world. */
function dnsServers(model: PolicyModel, ends: readonly End[]): Party[] {
  const found = ends.filter(
    ({ party }) => party.pod?.labels['k8s-app'] === 'kube-dns' || party.pod?.labels['k8s-app'] === 'coredns',
  );
  const labels = {
    'k8s-app': 'kube-dns',
    [metaLabels.namespace]: 'kube-system',
    [metaLabels.serviceAccount]: 'coredns',
    [metaLabels.cluster]: 'default',
  };
  const madeUp: Party = {
    identity: 0,
    apiServer: false,
    isPod: true,
    pod: { namespace: 'kube-system', labels },
    namedPorts: [
      { name: 'dns', protocol: 'UDP', port: 53 },
      { name: 'dns-tcp', protocol: 'TCP', port: 53 },
    ],
  };
  const host = { identity: reservedIdentities.host, apiServer: false, isPod: false, namedPorts: [] };
  const outside = ['169.254.20.10', '203.0.113.1'].map((address) => partyOf({ ...model, addresses: [] }, address));
  return [...(found.length > 0 ? found.map(({ party }) => party) : [madeUp]), host, ...outside];
}

/** Where the API server answers; anywhere outside where nobody knows. */
function apiServerParties(ends: readonly End[]): Party[] {
  const identity = reservedIdentities['kube-apiserver'];
  const found = ends.filter(({ party }) => party.apiServer || party.identity === identity).map(({ party }) => party);
  if (found.some(({ address }) => address !== undefined)) return found;
  const outside = parseAddress('203.0.113.1');
  return outside.ok ? [{ address: outside.value, identity, apiServer: true, isPod: false, namedPorts: [] }] : found;
}

function hasOwnAccount({ party }: End): boolean {
  const account = party.pod?.labels[metaLabels.serviceAccount];
  return account !== undefined && account !== 'default';
}

/** Blocks of nodes' pods, and addresses that pods really have. */
function blocksOfPods({ model, planned }: OfflineModel): Cidr[] {
  const pools = model.prefixes.filter((row) => row.identity === reservedIdentities.unmanaged).map((row) => row.cidr);
  const addresses = model.addresses.filter((row) => row.kind === 'pod' && !planned.has(row.address));
  return [
    ...pools.flatMap((cidr) => {
      const parsed = parseCidr(cidr);
      return parsed.ok ? [parsed.value] : [];
    }),
    ...addresses.flatMap(({ address }) => {
      const parsed = parseAddress(address);
      return parsed.ok ? [{ ...parsed.value, prefixBits: parsed.value.bytes.length * 8 }] : [];
    }),
  ];
}

/** Everybody writes 0.0.0.0/0 for the world; a narrower block that holds pods is a mistake. */
function blockFinding(
  policy: OfflinePolicy,
  row: PolicyRow,
  rule: PolicyRule,
  peer: PolicyPeer,
  podBlocks: readonly Cidr[],
): Finding[] {
  if (peer.kind !== 'block' || peer.reach !== 'outside') return [];
  const parsed = parseCidr(peer.cidr);
  if (!parsed.ok || parsed.value.prefixBits === 0) return [];
  const held = podBlocks.find((each) => {
    const meets = cidrContains(parsed.value, each) || cidrContains(each, parsed.value);
    const left = peer.except.some((text) => {
      const except = parseCidr(text);
      return except.ok && cidrContains(except.value, each);
    });
    return meets && !left;
  });
  if (held === undefined) return [];
  return [
    findingAt(
      policy.manifest,
      'BLOCK_HOLDS_PODS',
      rulePath(policy, row, rule),
      `${peer.cidr} holds addresses of pods, and does not stand for pods`,
    ),
  ];
}
