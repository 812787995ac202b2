// Makes CustomResourceDefinitions from the schemas and installs them.
import { z } from 'zod';
import type { KubeClient } from '../client.ts';
import { type KubeObject, kubernetesResources } from '../resource.ts';
import { type WeirKind, weirResources } from './schemas.ts';

type JsonSchema = { [key: string]: unknown };

/** Kubernetes' dialect: no $schema, no additionalProperties: false (it prunes), no exclusive bounds as numbers. */
function structural(schema: JsonSchema): JsonSchema {
  const { $schema: _s, additionalProperties, properties, items, ...rest } = schema;
  const result: JsonSchema = { ...rest };
  if (properties !== undefined) {
    result.properties = Object.fromEntries(
      Object.entries(properties as Record<string, JsonSchema>).map(([name, value]) => [name, structural(value)]),
    );
  }
  if (items !== undefined) result.items = structural(items as JsonSchema);
  if (typeof additionalProperties === 'object')
    result.additionalProperties = structural(additionalProperties as JsonSchema);
  return result;
}

/** The definition of one kind. */
export function customResourceDefinition(kind: WeirKind): KubeObject & { spec: unknown } {
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: {
      name: `${kind.plural}.${kind.group}`,
      // The API server wants to be told of who approved a definition in a group of Kubernetes' own.
      ...(kind.group.endsWith('.k8s.io') && {
        annotations: { 'api-approved.kubernetes.io': 'unapproved, as the network-policy-api project defines it' },
      }),
    },
    spec: {
      group: kind.group,
      scope: kind.namespaced ? 'Namespaced' : 'Cluster',
      names: {
        kind: kind.kind,
        plural: kind.plural,
        singular: kind.singular,
        shortNames: kind.shortNames,
        listKind: `${kind.kind}List`,
      },
      versions: [
        {
          name: kind.version,
          served: true,
          storage: true,
          schema: {
            openAPIV3Schema: structural(
              z.toJSONSchema(kind.schema, { target: 'openapi-3.0', io: 'input' }) as JsonSchema,
            ),
          },
          subresources: kind.status ? { status: {} } : undefined,
          additionalPrinterColumns: kind.columns,
        },
      ],
    },
  };
}

/** Installs or updates the definitions of these kinds and waits until the API server serves them. */
export async function installCustomResources(
  client: KubeClient,
  signal?: AbortSignal,
  kinds: readonly WeirKind[] = Object.values(weirResources),
): Promise<void> {
  for (const kind of kinds) {
    await client.apply(kubernetesResources.customResourceDefinitions, customResourceDefinition(kind));
  }
  const deadlineMs = Date.now() + 30_000;
  for (const kind of kinds) {
    for (;;) {
      signal?.throwIfAborted();
      try {
        await client.list(kind, { query: { limit: 1 } });
        break;
      } catch (error) {
        if (Date.now() > deadlineMs) throw error;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
  }
}
