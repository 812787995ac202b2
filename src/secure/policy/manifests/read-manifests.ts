// Reads manifests as people keep them: several documents in a file, Lists as `kubectl get -o yaml` prints them, JSON.
// Every object remembers where each of its fields stands, so that what is wrong can be pointed at.
import { type Document, isAlias, isMap, isScalar, isSeq, LineCounter, type Node, parseAllDocuments } from 'yaml';
import { type PathStep, pathSteps } from './json-path.ts';

/** A place in a file; both count from 1. */
export interface Place {
  readonly line: number;
  readonly column: number;
}

/** One object of a file. */
export interface Manifest {
  readonly file: string;
  readonly kind: string;
  readonly apiVersion: string;
  readonly name: string;
  /** Empty where the file does not say. */
  readonly namespace: string;
  readonly value: Readonly<Record<string, unknown>>;
  /** Where a JSON path stands: the field's name, or the deepest part of the path that there is. */
  place(path: string): Place;
}

/** What cannot be read in a file. */
export interface UnreadText extends Place {
  readonly file: string;
  readonly message: string;
}

/** The objects of a file, and what is wrong with its text. */
export interface ReadFile {
  readonly manifests: readonly Manifest[];
  readonly unread: readonly UnreadText[];
}

/** A text with the name that messages give it. */
export interface NamedText {
  readonly file: string;
  readonly text: string;
}

/** Reads files. Never throws: what cannot be read is told. */
export function readManifests(files: readonly NamedText[]): ReadFile {
  const parse = createParser();
  const read = files.map((file) => readFile(file, parse));
  return { manifests: read.flatMap((each) => each.manifests), unread: read.flatMap((each) => each.unread) };
}

interface ParsedText {
  readonly lines: LineCounter;
  readonly documents: readonly Document[];
}

/** Trees of thousands of files are too much to keep for the few places that are asked for: only the last one is kept. */
function createParser(): (text: string) => ParsedText {
  let last: { text: string; parsed: ParsedText } | undefined;
  return (text) => {
    if (last?.text === text) return last.parsed;
    const lines = new LineCounter();
    const options = { lineCounter: lines, merge: true, prettyErrors: false };
    const parsed = { lines, documents: [...(parseAllDocuments(text, options) as Document[])] };
    last = { text, parsed };
    return parsed;
  };
}

function readFile({ file, text }: NamedText, parse: (text: string) => ParsedText): ReadFile {
  const manifests: Manifest[] = [];
  const unread: UnreadText[] = [];
  let parsed: ParsedText;
  try {
    parsed = parse(text);
  } catch (error) {
    return { manifests, unread: [{ file, line: 1, column: 1, message: firstLine(error) }] };
  }
  for (const [number, document] of parsed.documents.entries()) {
    for (const error of document.errors) {
      unread.push({ file, ...placeOf(parsed, error.pos[0]), message: firstLine(error) });
    }
    if (document.errors.length > 0) continue;
    const start = placeOf(parsed, document.contents?.range?.[0] ?? document.range?.[0] ?? 0);
    let value: unknown;
    try {
      value = document.toJS();
    } catch (error) {
      unread.push({ file, ...start, message: firstLine(error) });
      continue;
    }
    if (value === null || value === undefined) continue;
    if (!isFields(value)) {
      unread.push({ file, ...start, message: 'is no object of Kubernetes' });
      continue;
    }
    collect(value, [], (object, above) => {
      manifests.push(
        manifestOf(file, object, (path) => {
          const again = parse(text);
          const offset = offsetOf(again.documents[number]!, [...above, ...pathSteps(path)]);
          return offset === undefined ? start : placeOf(again, offset);
        }),
      );
    });
  }
  return { manifests, unread };
}

function placeOf({ lines }: ParsedText, offset: number): Place {
  const { line, col } = lines.linePos(offset);
  return { line: Math.max(1, line), column: Math.max(1, col) };
}

/** Takes Lists apart, Lists in Lists too. */
function collect(
  value: Readonly<Record<string, unknown>>,
  above: readonly PathStep[],
  add: (value: Readonly<Record<string, unknown>>, above: readonly PathStep[]) => void,
): void {
  const list = typeof value.kind === 'string' && value.kind.endsWith('List') && Array.isArray(value.items);
  if (!list) add(value, above);
  for (const [i, item] of list ? (value.items as unknown[]).entries() : []) {
    if (isFields(item)) collect(item, [...above, 'items', i], add);
  }
}

function manifestOf(file: string, value: Readonly<Record<string, unknown>>, place: Manifest['place']): Manifest {
  const metadata = isFields(value.metadata) ? value.metadata : {};
  const text = (given: unknown): string => (typeof given === 'string' ? given : '');
  return {
    file,
    kind: text(value.kind),
    apiVersion: text(value.apiVersion),
    name: text(metadata.name),
    namespace: text(metadata.namespace),
    value,
    place,
  };
}

/** Where a path stands in the text; undefined when not even its beginning is there. */
function offsetOf(document: Document, steps: readonly PathStep[]): number | undefined {
  let node = document.contents as Node | null;
  let offset = node?.range?.[0];
  for (const step of steps) {
    if (isAlias(node)) node = node.resolve(document) ?? null;
    if (isMap(node)) {
      const pair = node.items.find(({ key }) => String(isScalar(key) ? key.value : key) === String(step));
      if (pair === undefined) return offset;
      offset = (pair.key as Node).range?.[0] ?? offset;
      node = pair.value as Node | null;
    } else if (isSeq(node) && typeof step === 'number') {
      const item = node.items[step] as Node | undefined;
      if (item === undefined) return offset;
      offset = item.range?.[0] ?? offset;
      node = item;
    } else return offset;
  }
  return offset;
}

function isFields(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function firstLine(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  return message.split('\n')[0]!.replace(/:$/, '');
}
