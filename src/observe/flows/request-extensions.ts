// What a request for flows asks for beyond the contract: a google.protobuf.Struct in its `extensions`. What is not known
// here is refused by its name, as of filters: what is silently ignored would show what was not asked for.
import { create, createRegistry, type JsonValue, toJson } from '@bufbuild/protobuf';
import { type Any, AnySchema, anyPack, anyUnpack, StructSchema } from '@bufbuild/protobuf/wkt';
import { compileProcessPattern, type NamedProcess } from '../processes/process-pattern.ts';
import { FilterError } from './filter-values.ts';
import type { FlowMatch } from './flow-filter.ts';
import type { FlowRow } from './flow-row.ts';

/** What `extensions` of a request may hold. */
export interface RequestExtensions {
  /** One end's process is one of these: a base name, a path or an exec id, with `*` for any characters. */
  readonly process?: readonly string[];
  /** Neither end's process is one of these. */
  readonly not_process?: readonly string[];
}

const known = ['process', 'not_process'] as const;
const maxPatterns = 256;
const registry = createRegistry(StructSchema);

/** The field of a request; undefined where nothing is asked for. */
export function packRequestExtensions(wanted: RequestExtensions): Any | undefined {
  const fields = Object.entries(wanted).filter(([, patterns]) => patterns.length > 0);
  if (fields.length === 0) return undefined;
  const texts = (patterns: readonly string[]) => ({
    kind: {
      case: 'listValue' as const,
      value: { values: patterns.map((text) => ({ kind: { case: 'stringValue' as const, value: text } })) },
    },
  });
  const struct = create(StructSchema, {
    fields: Object.fromEntries(fields.map(([name, patterns]) => [name, texts(patterns)])),
  });
  return create(AnySchema, anyPack(StructSchema, struct));
}

/** Whether a process is meant. */
type ProcessMatch = (process: NamedProcess) => boolean;

/** What the field asks for; undefined for what it says nothing of. Throws a FilterError for what is not understood. */
export function requestedProcesses(extensions: Any | undefined): {
  readonly process?: ProcessMatch;
  readonly notProcess?: ProcessMatch;
} {
  if (extensions === undefined) return {};
  const wanted = patternsOf(extensions);
  const of = (name: (typeof known)[number]) => {
    const patterns = wanted.get(name) ?? [];
    return patterns.length === 0 ? undefined : compileProcesses(`extensions.${name}`, patterns);
  };
  return { process: of('process'), notProcess: of('not_process') };
}

/** The predicate that the field asks for. Throws a FilterError for what is not understood. */
export function compileRequestExtensions(extensions: Any | undefined): FlowMatch {
  const { process, notProcess } = requestedProcesses(extensions);
  const isAt = (match: ProcessMatch, { sourceProcess, destinationProcess }: FlowRow) =>
    (sourceProcess !== undefined && match(sourceProcess)) ||
    (destinationProcess !== undefined && match(destinationProcess));
  return (row) => (process === undefined || isAt(process, row)) && (notProcess === undefined || !isAt(notProcess, row));
}

function patternsOf(extensions: Any): ReadonlyMap<string, readonly string[]> {
  let fields: JsonValue;
  try {
    const struct = anyUnpack(extensions, StructSchema);
    if (struct === undefined)
      throw new FilterError(`extensions: ${JSON.stringify(extensions.typeUrl.slice(0, 100))} is no Struct`);
    fields = toJson(StructSchema, struct, { registry });
  } catch (error) {
    if (error instanceof FilterError) throw error;
    throw new FilterError('extensions: the Struct cannot be read');
  }
  const wanted = new Map<string, readonly string[]>();
  for (const [name, value] of Object.entries(fields as Record<string, JsonValue>)) {
    if (!(known as readonly string[]).includes(name))
      throw new FilterError(`extensions.${name.slice(0, 100)}: is not known here; known are ${known.join(', ')}`);
    const list = typeof value === 'string' ? [value] : value;
    if (!Array.isArray(list) || list.some((each) => typeof each !== 'string' || each === ''))
      throw new FilterError(`extensions.${name}: is no list of texts`);
    if (list.length > maxPatterns) throw new FilterError(`extensions.${name}: more than ${maxPatterns} patterns`);
    wanted.set(name, list as string[]);
  }
  return wanted;
}

function compileProcesses(name: string, patterns: readonly string[]): ProcessMatch {
  const any = patterns.map((text) => {
    const match = compileProcessPattern(text);
    if (match === undefined) throw new FilterError(`${name}: is longer than 512 characters`);
    return match;
  });
  // Processes are few and flows many.
  const before = new WeakMap<NamedProcess, boolean>();
  return (process) => {
    let result = before.get(process);
    if (result === undefined) {
      result = any.some((match) => match(process));
      before.set(process, result);
    }
    return result;
  };
}
