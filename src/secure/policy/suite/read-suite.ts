// Suites of assertions about policies: who may talk with whom, written so that everybody can read it.
//
//   policies: [policies/]            files and folders, relative to the suite
//   pods: [pods.yaml]
//   tests:
//     - from shop/cart to shop/db 5432/tcp: allowed
//     - {from: shop/cart, to: world, port: 443, expect: denied, name: the cart stays inside}
import { isMap, isScalar, isSeq, LineCounter, type Node, parseDocument } from 'yaml';
import { parseService } from '../parties.ts';

/** What is expected. `egress denied` and `ingress denied` also say at which end. */
export type Expectation = 'allowed' | 'denied' | 'egress denied' | 'ingress denied';

/** One assertion. */
export interface Assertion {
  readonly name: string;
  readonly from: string;
  readonly to: string;
  readonly port: string;
  readonly expect: Expectation;
  readonly line: number;
}

/** A suite, or what is wrong with its text, each with the line. */
export interface ReadSuite {
  readonly policies: readonly string[];
  readonly pods: readonly string[];
  readonly tests: readonly Assertion[];
  readonly problems: readonly { readonly line: number; readonly message: string }[];
}

const expectations: readonly string[] = ['allowed', 'denied', 'egress denied', 'ingress denied'];
const sentence = /^from\s+(.+?)\s+to\s+(.+?)(?:\s+(?:on\s+|at\s+|port\s+)?(\S+))?$/;

/** Reads a suite. */
export function readSuite(text: string): ReadSuite {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const problems: { line: number; message: string }[] = [];
  const lineOf = (node: unknown): number => lines.linePos((node as Node | null)?.range?.[0] ?? 0).line || 1;
  const bad = (node: unknown, message: string): void => void problems.push({ line: lineOf(node), message });
  const empty = { policies: [], pods: [], tests: [], problems };
  for (const error of document.errors) {
    problems.push({ line: lines.linePos(error.pos[0]).line, message: error.message.split('\n')[0]! });
  }
  if (problems.length > 0) return empty;
  const root = document.contents;
  if (!isMap(root)) {
    bad(root, 'a suite must be an object with policies, pods and tests');
    return empty;
  }
  for (const { key } of root.items) {
    const name = String(key);
    if (!['name', 'policies', 'pods', 'tests'].includes(name))
      bad(key, `${name} is not a field of a suite; the fields are name, policies, pods, tests`);
  }
  const paths = (field: string): string[] => {
    const value = root.get(field, true) as unknown;
    if (value === undefined) return [];
    const list: unknown[] = isSeq(value) ? value.items : [value];
    return list.flatMap((each) => {
      if (isScalar(each) && typeof each.value === 'string') return [each.value];
      bad(each, `${field} must be paths`);
      return [];
    });
  };
  const tests = root.get('tests', true) as unknown;
  if (!isSeq(tests) || tests.items.length === 0) bad(tests ?? root, 'tests must be a list of assertions');
  const items: unknown[] = isSeq(tests) ? tests.items : [];
  const assertions = items.flatMap((node) => {
    const read = assertionOf(node);
    if (typeof read === 'string') {
      bad(node, read);
      return [];
    }
    return [{ ...read, line: lineOf(node) }];
  });
  return { policies: paths('policies'), pods: paths('pods'), tests: assertions, problems };
}

/** An assertion in either form, or what is wrong with it. */
function assertionOf(node: unknown): Omit<Assertion, 'line'> | string {
  if (isScalar(node) && typeof node.value === 'string') {
    const [, words, expect] = /^(.*?)\s*:\s*([^:]+)$/.exec(node.value) ?? [];
    return words === undefined ? 'must read "from X to Y 80/tcp: allowed"' : fromSentence(words, expect!);
  }
  if (!isMap(node)) return 'must be "from X to Y 80/tcp: allowed" or an object';
  const fields = node.toJSON() as Record<string, unknown>;
  const keys = Object.keys(fields);
  if (keys.length === 1 && keys[0]!.startsWith('from ')) return fromSentence(keys[0]!, String(fields[keys[0]!]));
  const known = ['name', 'from', 'to', 'port', 'expect'];
  const unknown = keys.find((key) => !known.includes(key));
  if (unknown !== undefined) return `${unknown} is not a field of an assertion; the fields are ${known.join(', ')}`;
  const { from, to, port = '80/tcp', expect, name } = fields;
  if (typeof from !== 'string' || typeof to !== 'string') return 'must have from and to';
  return checked({
    from,
    to,
    port: String(port),
    expect: String(expect),
    name: name === undefined ? undefined : String(name),
  });
}

function fromSentence(words: string, expect: string): Omit<Assertion, 'line'> | string {
  const found = sentence.exec(words.trim());
  if (found === null) return `${JSON.stringify(words)} does not read "from X to Y 80/tcp"`;
  const [, from, to, port] = found;
  // `to svc shop/cart` has a space in it, and no port need follow.
  if (port !== undefined && parseService(port) === undefined && /^(svc|service)$/.test(to!)) {
    return checked({ from: from!, to: `${to} ${port}`, port: '80/tcp', expect, name: undefined });
  }
  return checked({ from: from!, to: to!, port: port ?? '80/tcp', expect, name: undefined });
}

function checked(given: { from: string; to: string; port: string; expect: string; name: string | undefined }) {
  const { from, to, port, name } = given;
  const expect = given.expect.trim().toLowerCase();
  if (parseService(port) === undefined) return `${port} is no port: write 443, 53/udp, sctp/3868, icmp or icmpv6/128`;
  if (!expectations.includes(expect))
    return `expects ${JSON.stringify(given.expect)}; it may be ${expectations.join(', ')}`;
  return { from, to, port, expect: expect as Expectation, name: name ?? `${from} -> ${to} ${port}: ${expect}` };
}
