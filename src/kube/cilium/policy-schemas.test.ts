// The definitions that Weir installs accept and refuse what those of the ecosystem do: every path, type, required field
// and constraint is compared with a table of facts.
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { customResourceDefinition } from '../weir/custom-resources.ts';
import type { WeirKind } from '../weir/schemas.ts';
import { policyResources } from './schemas.ts';

const facts = process.env.WEIR_FACTS ?? join(fileURLToPath(new URL('../../..', import.meta.url)), '../shared/facts');

type Schema = Readonly<Record<string, unknown>> & {
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly items?: Schema;
  readonly additionalProperties?: Schema;
  readonly required?: readonly string[];
};

/** One line per path: its type and what it must keep to. */
function lines(schema: Schema, path: string, required: boolean, into: Map<string, string>): void {
  const anyType = schema['x-kubernetes-int-or-string'] === true;
  if (path !== '') into.set(path, `${anyType ? 'int-or-string' : schema.type} ${required ? 'required' : ''}`);
  for (const [name, inner] of Object.entries(schema.properties ?? {})) {
    lines(inner, path === '' ? name : `${path}.${name}`, schema.required?.includes(name) ?? false, into);
  }
  if (schema.items !== undefined) lines(schema.items, `${path}[]`, false, into);
  if (schema.additionalProperties !== undefined) lines(schema.additionalProperties, `${path}.{}`, false, into);
}

const constraints = ['pattern', 'maxLength', 'minLength', 'maxItems', 'minItems', 'minimum', 'maximum'];
constraints.push('format', 'default', 'maxProperties', 'minProperties', 'x-kubernetes-list-type');

/** The same constraints as the table writes them. */
function constraintsOf(schema: Schema): string[] {
  const found = constraints.filter((name) => schema[name] !== undefined && !isImplied(schema, name));
  const cel = (schema['x-kubernetes-validations'] as { rule: string }[] | undefined) ?? [];
  // A slash needs no escape where patterns are texts.
  return [
    ...found.map((name) => `${name}=${schema[name]}`.replaceAll('\\/', '/')),
    ...cel.map(({ rule }) => `cel=${rule}`),
  ].sort();
}

/** Whole numbers of zod are bounded by what JavaScript can count. */
function isImplied(schema: Schema, name: string): boolean {
  return (name === 'minimum' || name === 'maximum') && Math.abs(Number(schema[name])) === Number.MAX_SAFE_INTEGER;
}

function schemaAt(root: Schema, path: string): Schema {
  let at = root;
  for (const part of path.replaceAll('[]', '.[]').split('.')) {
    if (part === '[]') at = at.items!;
    else if (part === '{}') at = at.additionalProperties!;
    else at = at.properties![part]!;
  }
  return at;
}

for (const kind of Object.values(policyResources) as WeirKind[]) {
  const file = join(facts, `crd-${kind.plural}.tsv`);
  const skip = existsSync(file) ? false : `no table of facts at ${process.env.WEIR_FACTS ? 'WEIR_FACTS' : 'its place'}`;
  test(`${kind.kind}: the definition says what the table of facts says`, { skip }, () => {
    const rows = readFileSync(file, 'utf8')
      .trimEnd()
      .split('\n')
      .filter((line) => !line.startsWith('#'))
      .slice(1);
    const definition = customResourceDefinition(kind).spec as { versions: { schema: { openAPIV3Schema: Schema } }[] };
    const root = definition.versions[0]!.schema.openAPIV3Schema;
    const found = new Map<string, string>();
    lines(root, '', false, found);
    // The table does not say again of `specs` what it says of `spec`.
    for (const path of found.keys()) if (path.startsWith('specs[].')) found.delete(path);
    const wanted = new Map(
      rows.map((row) => row.split('\t')).map(([path, type, must]) => [path!, `${type} ${must ?? ''}`]),
    );
    assert.deepEqual([...found].sort(), [...wanted].sort());
    for (const row of rows) {
      const [path = '', , , text = ''] = row.split('\t');
      const told = text
        .split('; ')
        .map((part) => part.trim())
        .filter((part) => constraints.some((name) => part.startsWith(`${name}=`)) || part.startsWith('cel='))
        .sort();
      assert.deepEqual(constraintsOf(schemaAt(root, path)), told, path);
    }
  });
}
