// Kinds of the group cilium.io that Weir serves as they are. Each schema is written once: it is the type, the check at run
// time, and the schema of the CRD that the API server enforces.
import { z } from 'zod';
import type { WeirKind } from '../weir/schemas.ts';
import { cidrGroupSchema, ciliumPolicySchema, clusterNetworkPolicySchema } from './policy-schemas.ts';
import { conditionSchema, selectorSchema } from './selector-schemas.ts';

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

const policyColumns = [
  { name: 'Age', type: 'date', jsonPath: '.metadata.creationTimestamp' },
  { name: 'Valid', type: 'string', jsonPath: ".status.conditions[?(@.type=='Valid')].status" },
] as const;

/** The kinds of policy that Kubernetes does not bring itself, and what they refer to. */
export const policyResources = {
  networkPolicies: {
    group: 'cilium.io',
    version: 'v2',
    plural: 'ciliumnetworkpolicies',
    singular: 'ciliumnetworkpolicy',
    shortNames: ['cnp', 'ciliumnp'],
    kind: 'CiliumNetworkPolicy',
    namespaced: true,
    schema: ciliumPolicySchema,
    status: true,
    columns: policyColumns,
  },
  clusterwideNetworkPolicies: {
    group: 'cilium.io',
    version: 'v2',
    plural: 'ciliumclusterwidenetworkpolicies',
    singular: 'ciliumclusterwidenetworkpolicy',
    shortNames: ['ccnp'],
    kind: 'CiliumClusterwideNetworkPolicy',
    namespaced: false,
    schema: ciliumPolicySchema,
    status: true,
    columns: [policyColumns[1]],
  },
  cidrGroups: {
    group: 'cilium.io',
    version: 'v2',
    plural: 'ciliumcidrgroups',
    singular: 'ciliumcidrgroup',
    shortNames: ['ccg'],
    kind: 'CiliumCIDRGroup',
    namespaced: false,
    schema: cidrGroupSchema,
    status: false,
    columns: [],
  },
  clusterNetworkPolicies: {
    group: 'policy.networking.k8s.io',
    version: 'v1alpha2',
    plural: 'clusternetworkpolicies',
    singular: 'clusternetworkpolicy',
    shortNames: ['cnp'],
    kind: 'ClusterNetworkPolicy',
    namespaced: false,
    schema: clusterNetworkPolicySchema,
    status: true,
    columns: [
      { name: 'Tier', type: 'string', jsonPath: '.spec.tier' },
      { name: 'Priority', type: 'string', jsonPath: '.spec.priority' },
      { name: 'Age', type: 'date', jsonPath: '.metadata.creationTimestamp' },
    ],
  },
} as const satisfies Record<string, WeirKind>;

/** The other kinds of cilium.io. */
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
