// Field masks: keeps of a message only what a client asked for.
import type { DescMessage, Message } from '@bufbuild/protobuf';
import { reflect } from '@bufbuild/protobuf/reflect';

/** Clears what the mask does not name. */
export type Masking = (message: Message) => void;

type Tree = Map<string, Tree | true>;

/** Compiles a mask of paths such as `source.pod_name`; answers with the path that the message does not have. */
export function compileFieldMask(
  schema: DescMessage,
  paths: readonly string[],
): { masking: Masking } | { unknown: string } {
  const root: Tree = new Map();
  for (const path of paths) {
    let tree = root;
    let desc: DescMessage | undefined = schema;
    const names = path.split('.');
    for (const [i, name] of names.entries()) {
      const field: DescMessage['fields'][number] | undefined = desc?.fields.find((each) => each.name === name);
      if (field === undefined) return { unknown: path };
      desc = field.fieldKind === 'message' ? field.message : undefined;
      const below = tree.get(name);
      if (below === true) break;
      if (i === names.length - 1) tree.set(name, true);
      else {
        const next = below ?? (new Map() as Tree);
        tree.set(name, next);
        tree = next;
      }
    }
  }
  return { masking: (message) => apply(schema, message, root) };
}

function apply(schema: DescMessage, message: Message, tree: Tree): void {
  const view = reflect(schema, message);
  for (const field of schema.fields) {
    const kept = tree.get(field.name);
    if (kept === true || !view.isSet(field)) continue;
    if (kept === undefined) view.clear(field);
    else if (field.fieldKind === 'message') {
      const target = message as unknown as Record<string, unknown>;
      const held =
        field.oneof === undefined
          ? target[field.localName]
          : (target[field.oneof.localName] as { value: unknown }).value;
      if (typeof held !== 'object' || held === null) continue; // a wrapper, which is its value
      // Ends and policies are shared between flows: what is cut is a copy.
      const copy = { ...(held as Message) };
      apply(field.message, copy, kept);
      if (field.oneof === undefined) target[field.localName] = copy;
      else target[field.oneof.localName] = { case: field.localName, value: copy };
    }
  }
}
