// Weir's own objects in the API, group weir.dev. Each schema is written once: it is the type, the check at run time,
// and the schema of the CRD that the API server enforces.
import { z } from 'zod';
import { selectorSchema } from '../cilium/selector-schemas.ts';
import type { Resource } from '../resource.ts';

const group = { group: 'weir.dev', version: 'v1alpha1' } as const;

/** A node as Weir knows it: who it is and which block of pod addresses it hands out. Written by the operator. */
const weirNodeSchema = z.object({
  spec: z.object({
    /** The node's own addresses, the preferred one of each family first. */
    addresses: z.array(z.string()).max(32),
    /** Those of the Node, by which policies select nodes. */
    labels: z.record(z.string(), z.string()).optional(),
    /** The blocks from which the node's pods get addresses, one per family. */
    podCIDRs: z.array(z.string()).max(8),
    /** The pools all nodes' blocks come from. An address in them that no slice names is a pod whose identity travels. */
    clusterPools: z.array(z.string()).max(16),
  }),
  status: z.object({ message: z.string().optional() }).optional(),
});

/** What a number stands for. The name is the number. Written by the operator, never changed. */
const weirIdentitySchema = z.object({
  labels: z.array(z.string().max(400)).max(256),
});

/**
 * A block of pod addresses and the node that has it. The name follows from the block, so that the API server lets a block
 * be claimed once only, whatever an operator that woke up late believes. Written by the operator.
 */
const weirBlockSchema = z.object({
  cidr: z.string(),
  node: z.string(),
  /** Why a block is kept although its node is gone. */
  message: z.string().optional(),
});

const portSchema = z.object({
  name: z.string(),
  protocol: z.enum(['TCP', 'UDP', 'SCTP']),
  port: z.int().min(1).max(65_535),
});

/** Some of a node's pods with their addresses and identities. Written by the node's agent. */
export const weirEndpointSliceSchema = z.object({
  node: z.string(),
  endpoints: z
    .array(
      z.object({
        id: z.int().min(1).max(65_535),
        namespace: z.string(),
        pod: z.string(),
        ipv4: z.string().optional(),
        ipv6: z.string().optional(),
        identity: z.int().min(1).max(16_777_215),
        ports: z.array(portSchema).max(256).optional(),
        /** What made the pod: flows of other nodes name it. */
        workload: z.object({ kind: z.string(), name: z.string() }).optional(),
      }),
    )
    .max(64),
});

/** What a node's agent tells of itself. Written by the agent; only the operator follows it. */
const weirNodeReportSchema = z.object({
  policies: z.object({
    /** Which set of policies is in the node's kernel: see src/secure/policy/policy-digest.ts. */
    digest: z.string().max(64),
    /** The same of what policies refer to: who is staged by namespace and cluster, groups of blocks, services. */
    refers: z
      .object({
        staging: z.string().max(64),
        groups: z.string().max(64),
        /** Absent while no policy names any. */
        services: z.string().max(64).optional(),
      })
      .optional(),
    /** The agent's count of changes of policies. */
    revision: z.int().min(0),
    /** Why not all of them are enforced. */
    problem: z.string().max(1024).optional(),
    reason: z.enum(['NoRoom', 'Failed']).optional(),
  }),
});

/** Who may see the flows of which namespaces. Written by people; the relay holds it. */
export const flowAccessSchema = z.object({
  spec: z.object({
    subjects: z
      .array(
        z.object({
          kind: z.enum(['User', 'Group', 'ServiceAccount']),
          name: z.string().min(1).max(256),
          /** Of a service account. */
          namespace: z.string().max(63).optional(),
        }),
      )
      .min(1)
      .max(256),
    /** By name, or by labels of the namespace; both add up. Without either there are none. */
    namespaces: z.array(z.string().min(1).max(63)).max(1024).optional(),
    namespaceSelector: selectorSchema.optional(),
    verbs: z
      .array(z.enum(['flows', 'processes']))
      .min(1)
      .max(2),
    /** What is left out. */
    redactions: z
      .array(z.enum(['arguments', 'labels', 'addresses-of-others', 'dns']))
      .max(4)
      .optional(),
  }),
});

type Named = {
  apiVersion?: string;
  kind?: string;
  metadata: { name: string; uid?: string; resourceVersion?: string; labels?: Record<string, string> };
};
export type WeirNode = Named & z.infer<typeof weirNodeSchema>;
export type WeirBlock = Named & z.infer<typeof weirBlockSchema>;
export type WeirIdentity = Named & z.infer<typeof weirIdentitySchema>;
export type WeirEndpointSlice = Named & z.infer<typeof weirEndpointSliceSchema>;
export type FlowAccess = Named & z.infer<typeof flowAccessSchema>;
export type WeirNodeReport = Named & z.infer<typeof weirNodeReportSchema>;

/** A column that kubectl prints. */
export interface PrinterColumn {
  readonly name: string;
  readonly type: 'string' | 'integer' | 'date' | 'boolean';
  readonly jsonPath: string;
}

/** A kind of ours: where it lives, its schema, its columns. */
export interface WeirKind extends Resource {
  readonly singular: string;
  readonly shortNames: readonly string[];
  readonly schema: z.ZodType;
  readonly status: boolean;
  readonly columns: readonly PrinterColumn[];
}

/** All kinds of ours. */
export const weirResources = {
  nodes: {
    ...group,
    plural: 'weirnodes',
    singular: 'weirnode',
    shortNames: ['wn'],
    kind: 'WeirNode',
    namespaced: false,
    schema: weirNodeSchema,
    status: true,
    columns: [
      { name: 'Addresses', type: 'string', jsonPath: '.spec.addresses' },
      { name: 'Pod CIDRs', type: 'string', jsonPath: '.spec.podCIDRs' },
      { name: 'Message', type: 'string', jsonPath: '.status.message' },
    ],
  },
  blocks: {
    ...group,
    plural: 'weirblocks',
    singular: 'weirblock',
    shortNames: ['wb'],
    kind: 'WeirBlock',
    namespaced: false,
    schema: weirBlockSchema,
    status: false,
    columns: [
      { name: 'Block', type: 'string', jsonPath: '.cidr' },
      { name: 'Node', type: 'string', jsonPath: '.node' },
      { name: 'Message', type: 'string', jsonPath: '.message' },
    ],
  },
  identities: {
    ...group,
    plural: 'weiridentities',
    singular: 'weiridentity',
    shortNames: ['wid'],
    kind: 'WeirIdentity',
    namespaced: false,
    schema: weirIdentitySchema,
    status: false,
    columns: [{ name: 'Labels', type: 'string', jsonPath: '.labels' }],
  },
  endpointSlices: {
    ...group,
    plural: 'weirendpointslices',
    singular: 'weirendpointslice',
    shortNames: ['wes'],
    kind: 'WeirEndpointSlice',
    namespaced: false,
    schema: weirEndpointSliceSchema,
    status: false,
    columns: [
      { name: 'Node', type: 'string', jsonPath: '.node' },
      { name: 'Pods', type: 'string', jsonPath: '.endpoints[*].pod' },
    ],
  },
  nodeReports: {
    ...group,
    plural: 'weirnodereports',
    singular: 'weirnodereport',
    shortNames: ['wnr'],
    kind: 'WeirNodeReport',
    namespaced: false,
    schema: weirNodeReportSchema,
    status: false,
    columns: [
      { name: 'Policies', type: 'string', jsonPath: '.policies.digest' },
      { name: 'Problem', type: 'string', jsonPath: '.policies.problem' },
    ],
  },
  flowAccesses: {
    ...group,
    plural: 'flowaccesses',
    singular: 'flowaccess',
    shortNames: ['fa'],
    kind: 'FlowAccess',
    namespaced: false,
    schema: flowAccessSchema,
    status: false,
    columns: [
      { name: 'Subjects', type: 'string', jsonPath: '.spec.subjects[*].name' },
      { name: 'Namespaces', type: 'string', jsonPath: '.spec.namespaces' },
      { name: 'Verbs', type: 'string', jsonPath: '.spec.verbs' },
      { name: 'Redactions', type: 'string', jsonPath: '.spec.redactions' },
    ],
  },
} as const satisfies Record<string, WeirKind>;
