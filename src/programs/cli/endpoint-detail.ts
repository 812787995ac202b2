// `weir endpoint get`: one pod and its policy, verdict by verdict with the rules behind each.
import { policyName, type RuleOrigin, rulePlace } from '../../core/rows.ts';
import type { EndpointView } from '../agent/api-routes.ts';
import type { EffectiveRow, PeerView } from '../agent/policy-view.ts';
import { askNodes, notFound } from './ask-nodes.ts';
import { durationText, labelsText, namespaceOf, protocolText } from './display-units.ts';
import { type Column, printValue, tableText, terminalColumns } from './output.ts';
import type { QueryOptions } from './query-command.ts';

type EndpointDetail = EndpointView & { readonly policy: readonly EffectiveRow[] };

/** Prints the endpoints that the text names: a pod has one, a number may have one on each node. */
export async function getEndpoint(pod: string, options: QueryOptions): Promise<void> {
  const answers = await askNodes<EndpointDetail>(options, `/v1/endpoints/${encodeURIComponent(pod)}`);
  const found = answers.flatMap((answer) => answer.value ?? []);
  if (found.length === 0) {
    const asked = answers.map((answer) => answer.node).join(', ');
    const error = notFound(`no pod ${pod} on ${asked}`, '`weir endpoint list` shows what there is.');
    if (error !== undefined) throw error;
    return;
  }
  if (options.output !== 'table') return printValue(found.length === 1 ? found[0] : found, options);
  for (const each of found) process.stdout.write(detailText(each, options));
}

function detailText(row: EndpointDetail, options: QueryOptions): string {
  const facts: [string, string | number | undefined][] = [
    ['Pod', `${row.namespace}/${row.pod}`],
    ['Node', row.node],
    ['Endpoint', `${row.id} (${row.state}, ${durationText((Date.now() - row.createdAtMs) / 1000)} old)`],
    ['Addresses', [row.ipv4, row.ipv6].filter(Boolean).join(', ')],
    ['Identity', `${row.identity}  ${labelsText(row.identityLabels)}`],
    ['Ports', row.namedPorts.map((port) => `${port.name}=${port.port}/${port.protocol}`).join(', ')],
    ['Device', `weir${row.id}, ifindex ${row.ifindex}, MAC in the pod ${row.mac}`],
    ['Container', row.containerId],
  ];
  const lines = facts.filter(([, value]) => value !== '').map(([name, value]) => `${`${name}:`.padEnd(11)} ${value}`);
  const rows = mergeRanges(row.policy);
  const columns: Column<EffectiveRow & { last: number }>[] = [
    { title: 'DIRECTION', value: (each) => each.direction },
    { title: 'PEER', value: (each) => peerText(each.peer), shrinkTo: 16 },
    { title: 'PORT', value: portText },
    { title: 'VERDICT', value: verdictText },
    { title: 'BECAUSE OF', value: originText, shrinkTo: 24 },
    { title: 'CLASS', value: (each) => each.peer.class, wide: true },
    { title: 'COOKIE', value: (each) => each.cookie, wide: true },
  ];
  const table = tableText(columns, rows, { wide: options.wide, terminalColumns: terminalColumns() });
  return `${lines.join('\n')}\n\nPolicy:\n${table}`;
}

function peerText(peer: PeerView): string {
  if (peer.class === 0) return '(anyone else)';
  const labels = peer.labels ?? [];
  const namespace = namespaceOf(labels);
  const who = labelsText(labels) || `identity ${peer.identity}`;
  const blocks = peer.prefixes?.length ? ` in ${peer.prefixes.join(',')}` : '';
  return `${namespace === undefined ? '' : `${namespace}: `}${who}${blocks}`;
}

function verdictText(row: EffectiveRow): string {
  const text = row.allow ? 'allow' : 'deny';
  return row.stagedAllow === row.allow ? text : `${text} (staged: ${row.stagedAllow ? 'allow' : 'deny'})`;
}

/** Where a verdict comes from: the rules that allow, or for a default deny the policies that isolate. */
export function originText(row: Pick<EffectiveRow, 'rules' | 'direction' | 'allow' | 'peer'>): string {
  if (row.rules.length > 0) {
    const names = row.rules.map(ruleText);
    return row.rules.some((rule) => rule.ruleIndex >= 0) ? names.join(', ') : `isolated by ${names.join(', ')}`;
  }
  if (!row.allow) return 'not compiled yet: closed until it is';
  if (row.peer.labels?.includes('reserved:host')) return 'a node always reaches its own pods';
  return row.peer.class === 0 ? 'no policy isolates this direction' : 'no policy speaks of it';
}

/** `shop/cart rule 0`, `lockdown egressDeny[1]`, or the policy alone where it isolates. */
export function ruleText(rule: RuleOrigin): string {
  const place = rulePlace(rule);
  if (place === undefined) return policyName(rule);
  const plain = rule.list === undefined && rule.spec === undefined;
  return `${policyName(rule)} ${plain ? `rule ${rule.ruleIndex}` : place}`;
}

/** The ports of a row with their last port: prefixes of ports are ranges. */
function portText(row: EffectiveRow & { last: number }): string {
  if (row.prefixBits === 0) return 'any';
  const protocol = protocolText(row.protocol);
  if (row.port === 0 && row.last === 65_535) return `${protocol} any`;
  return row.port === row.last ? `${protocol} ${row.port}` : `${protocol} ${row.port}-${row.last}`;
}

/** A range of ports is several rows in the kernel; people wrote one. */
export function mergeRanges(rows: readonly EffectiveRow[]): (EffectiveRow & { last: number })[] {
  const merged: (EffectiveRow & { last: number })[] = [];
  for (const row of rows) {
    const last = row.prefixBits === 0 ? 65_535 : row.port + 2 ** (24 - Math.max(8, row.prefixBits)) - 1;
    const before = merged.findLast(
      (each) =>
        each.direction === row.direction && each.peer.class === row.peer.class && each.protocol === row.protocol,
    );
    if (before !== undefined && before.cookie === row.cookie && before.last + 1 === row.port && row.prefixBits > 8)
      merged[merged.indexOf(before)] = { ...before, last };
    else merged.push({ ...row, last });
  }
  return merged;
}
