// The one way to write policies: fields in a fixed order, lists sorted where order has no meaning, comments kept. Rules and
// peers stay as they are: verdicts name rules by their place.
import {
  type Document,
  isMap,
  isScalar,
  isSeq,
  type Node,
  type Pair,
  parseAllDocuments,
  type YAMLMap,
  type YAMLSeq,
} from 'yaml';
import { isPolicyKind } from '../parse-policy.ts';

/** Fields in their order, of all kinds and depths; others follow as they stand. */
const fieldOrder = [
  'apiVersion',
  'kind',
  'metadata',
  'name',
  'namespace',
  'labels',
  'annotations',
  'description',
  'spec',
  'specs',
  'action',
  'tier',
  'priority',
  'subject',
  'endpointSelector',
  'nodeSelector',
  'namespaceSelector',
  'podSelector',
  'namespaces',
  'pods',
  'nodes',
  'networks',
  'ipBlock',
  'cidr',
  'cidrGroupRef',
  'cidrGroupSelector',
  'except',
  'policyTypes',
  'enableDefaultDeny',
  'log',
  'ingress',
  'ingressDeny',
  'egress',
  'egressDeny',
  'from',
  'to',
  'fromEndpoints',
  'fromEntities',
  'fromCIDR',
  'fromCIDRSet',
  'fromNodes',
  'toEndpoints',
  'toEntities',
  'toCIDR',
  'toCIDRSet',
  'toNodes',
  'toServices',
  'toFQDNs',
  'authentication',
  'ports',
  'toPorts',
  'icmps',
  'protocols',
  'protocol',
  'port',
  'endPort',
  'rules',
  'matchLabels',
  'matchExpressions',
  'key',
  'operator',
  'values',
  'status',
];
const rankOf = new Map(fieldOrder.map((name, i) => [name, i]));
/** Maps whose keys are names that people chose. */
const sortedMaps = ['matchLabels', 'labels', 'annotations'];
/** Lists of texts whose order has no meaning. */
const sortedLists = ['values', 'except', 'fromEntities', 'toEntities', 'fromCIDR', 'toCIDR', 'networks'];

/** What came of a file. */
export type Formatted = { readonly ok: true; readonly text: string } | { readonly ok: false; readonly message: string };

/** Formats the policies of a file; other objects in it keep their fields' order. JSON stays JSON. */
export function formatPolicies(text: string, json = false): Formatted {
  let documents: Document[];
  try {
    documents = [...(parseAllDocuments(text, { prettyErrors: false }) as Document[])];
  } catch (error) {
    return { ok: false, message: (error as Error).message.split('\n')[0]! };
  }
  const broken = documents.find((each) => each.errors.length > 0);
  if (broken !== undefined) return { ok: false, message: broken.errors[0]!.message.split('\n')[0]! };
  for (const document of documents) if (isMap(document.contents)) formatObject(document.contents);
  try {
    if (json) return { ok: true, text: `${JSON.stringify(documents[0]?.toJS(), undefined, 2)}\n` };
    const texts = documents
      .filter((each) => each.contents !== null || each.comment || each.commentBefore)
      .map((each) => each.toString({ lineWidth: 0, directives: false, flowCollectionPadding: false }));
    return { ok: true, text: texts.join('---\n') };
  } catch (error) {
    return { ok: false, message: (error as Error).message.split('\n')[0]! };
  }
}

function formatObject(object: YAMLMap): void {
  const kind = object.get('kind');
  const items = object.get('items');
  if (typeof kind === 'string' && kind.endsWith('List') && isSeq(items)) {
    for (const item of items.items) if (isMap(item)) formatObject(item);
  } else if (isPolicyKind(kind)) formatNode(object, '');
}

function formatNode(node: unknown, name: string): void {
  if (isMap(node)) formatMap(node, name);
  else if (isSeq(node)) formatList(node, name);
}

function formatMap(map: YAMLMap, name: string): void {
  for (const { key, value } of map.items) formatNode(value, keyText(key));
  const first = map.items[0]?.key;
  const place = ({ key }: Pair): number => rankOf.get(keyText(key)) ?? fieldOrder.length;
  if (sortedMaps.includes(name)) map.items.sort((a, b) => compare(keyText(a.key), keyText(b.key)));
  else map.items.sort((a, b) => place(a) - place(b));
  // A comment above the first field is the whole map's: it stays above whatever comes first.
  const now = map.items[0]?.key;
  if (now === first || !isScalar(first) || !isScalar(now) || !first.commentBefore) return;
  now.commentBefore = [first.commentBefore, now.commentBefore].filter(Boolean).join('\n');
  first.commentBefore = undefined;
}

function formatList(list: YAMLSeq, name: string): void {
  for (const item of list.items) formatNode(item, '');
  const texts = list.items.every((item) => isScalar(item) && typeof item.value === 'string');
  if (name === 'policyTypes' && texts)
    sortBy(list, (item) => (item === 'Ingress' ? '0' : item === 'Egress' ? '1' : item));
  else if (sortedLists.includes(name) && texts) sortBy(list, (item) => item);
  else if (name === 'matchExpressions' && list.items.every(isMap)) sortBy(list, String, 'key');
  else if (name === 'ports' && list.items.every(isMap)) sortPorts(list);
}

function sortBy(list: YAMLSeq, key: (value: string) => string, field?: string): void {
  const of = (item: unknown): string =>
    key(String(field === undefined ? (item as { value: unknown }).value : (item as YAMLMap).get(field)));
  list.items.sort((a, b) => compare(of(a), of(b)));
}

/** By protocol, then names before numbers, then by number. */
function sortPorts(list: YAMLSeq): void {
  const of = (item: unknown): string => {
    const map = item as YAMLMap;
    const port = String(map.get('port') ?? '');
    const number = /^\d+$/.test(port) ? port.padStart(6, '0') : ` ${port}`;
    return `${String(map.get('protocol') ?? 'TCP')} ${number}`;
  };
  list.items.sort((a, b) => compare(of(a), of(b)));
}

function keyText(key: unknown): string {
  return String(isScalar(key as Node) ? (key as { value: unknown }).value : key);
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
