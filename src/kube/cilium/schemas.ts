// Kinds of the group cilium.io that Weir serves as they are. Each schema is written once: it is the type, the check at run
// time, and the schema of the CRD that the API server enforces.
import { z } from 'zod';
import type { WeirKind } from '../weir/schemas.ts';

const labelValue = z
  .string()
  .max(63)
  .regex(/^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$/);

const atomic = { 'x-kubernetes-list-type': 'atomic' };

const selectorSchema = z.object({
  matchLabels: z.record(z.string(), labelValue).optional(),
  matchExpressions: z
    .array(
      z.object({
        key: z.string(),
        operator: z.enum(['In', 'NotIn', 'Exists', 'DoesNotExist']),
        values: z.array(z.string()).meta(atomic).optional(),
      }),
    )
    .meta(atomic)
    .optional(),
});

const conditionSchema = z.object({
  type: z
    .string()
    .max(316)
    .regex(
      /^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$/,
    ),
  status: z.enum(['True', 'False', 'Unknown']),
  reason: z
    .string()
    .min(1)
    .max(1024)
    .regex(/^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$/),
  message: z.string().max(32_768),
  lastTransitionTime: z.string().meta({ format: 'date-time' }),
  observedGeneration: z.int().min(0).meta({ format: 'int64' }).optional(),
});

/** Addresses that services of type LoadBalancer get. The spec is the user's, the status the operator's. */
const loadBalancerPoolSchema = z.object({
  spec: z.object({
    blocks: z
      .array(
        z.object({
          cidr: z.string().meta({ format: 'cidr' }).optional(),
          start: z.string().optional(),
          stop: z.string().optional(),
        }),
      )
      .optional(),
    /** Whether the first and the last address of a CIDR are given, too: they are unless this says No. */
    allowFirstLastIPs: z.enum(['Yes', 'No']).optional(),
    serviceSelector: selectorSchema.optional(),
    /** Gives nothing new; what was given stays. */
    disabled: z.boolean().default(false),
  }),
  status: z
    .object({
      conditions: z
        .array(conditionSchema)
        .meta({ 'x-kubernetes-list-type': 'map', 'x-kubernetes-list-map-keys': ['type'] })
        .optional(),
    })
    .optional(),
});

/** A pool as the API has it. */
export type LoadBalancerPool = {
  apiVersion?: string;
  kind?: string;
  metadata: { name: string; uid?: string; resourceVersion?: string; creationTimestamp?: string; generation?: number };
} & z.infer<typeof loadBalancerPoolSchema>;

/** The kinds of cilium.io. */
export const ciliumResources = {
  loadBalancerPools: {
    group: 'cilium.io',
    version: 'v2',
    plural: 'ciliumloadbalancerippools',
    singular: 'ciliumloadbalancerippool',
    shortNames: ['ippools', 'ippool', 'lbippool', 'lbippools'],
    kind: 'CiliumLoadBalancerIPPool',
    namespaced: false,
    schema: loadBalancerPoolSchema,
    status: true,
    columns: [
      { name: 'Disabled', type: 'boolean', jsonPath: '.spec.disabled' },
      {
        name: 'Conflicting',
        type: 'string',
        jsonPath: '.status.conditions[?(@.type=="cilium.io/PoolConflict")].status',
      },
      {
        name: 'IPs Available',
        type: 'string',
        jsonPath: '.status.conditions[?(@.type=="cilium.io/IPsAvailable")].message',
      },
      { name: 'Age', type: 'date', jsonPath: '.metadata.creationTimestamp' },
    ],
  },
} as const satisfies Record<string, WeirKind>;
