import assert from 'node:assert/strict';
import { test } from 'node:test';
import { customResourceDefinition } from './custom-resources.ts';
import { weirResources } from './schemas.ts';

type Schema = { type?: string; properties?: Record<string, Schema>; items?: Schema; [key: string]: unknown };

function schemaOf(kind: (typeof weirResources)[keyof typeof weirResources]): Schema {
  const { versions } = customResourceDefinition(kind).spec as {
    versions: { schema: { openAPIV3Schema: Schema } }[];
  };
  return versions[0]!.schema.openAPIV3Schema;
}

function everySchema(schema: Schema): Schema[] {
  const below = [...Object.values(schema.properties ?? {}), ...(schema.items === undefined ? [] : [schema.items])];
  return [schema, ...below.flatMap(everySchema)];
}

test('every kind is named as the API server demands', () => {
  for (const kind of Object.values(weirResources)) {
    const definition = customResourceDefinition(kind);
    assert.equal(definition.metadata.name, `${kind.plural}.weir.dev`);
    assert.equal((definition.spec as { scope: string }).scope, 'Cluster');
  }
});

test('schemas are structural: every part has a type, and nothing that Kubernetes refuses', () => {
  for (const kind of Object.values(weirResources)) {
    for (const schema of everySchema(schemaOf(kind))) {
      assert.ok(typeof schema.type === 'string', `${kind.kind}: ${JSON.stringify(schema)}`);
      for (const refused of ['$schema', '$ref', 'definitions', 'patternProperties', 'const'])
        assert.ok(!(refused in schema), `${kind.kind} has ${refused}`);
      assert.notEqual(schema.additionalProperties, false);
      for (const bound of ['exclusiveMinimum', 'exclusiveMaximum'])
        assert.notEqual(typeof schema[bound], 'number', `${kind.kind} has ${bound} as a number`);
    }
  }
});

test('the bounds of the schemas reach the API server', () => {
  const endpoint = schemaOf(weirResources.endpointSlices).properties!.endpoints!;
  assert.equal(endpoint.maxItems, 64);
  const { id, identity } = endpoint.items!.properties!;
  assert.deepEqual([id!.minimum, id!.maximum, identity!.maximum], [1, 65_535, 16_777_215]);
  assert.deepEqual((endpoint.items as { required?: string[] }).required, ['id', 'namespace', 'pod', 'identity']);
});
