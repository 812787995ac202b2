// CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy and CiliumCIDRGroup of cilium.io/v2 as the API server checks them.
// What a policy means is read in src/secure/policy, which refuses more than a schema can say.
import { z } from 'zod';
import { conditionSchema, selectorSchema } from './selector-schemas.ts';

const atomic = { 'x-kubernetes-list-type': 'atomic' };
const cidr = z.string().meta({ format: 'cidr' });
const text = z.string().optional();
const list = <T extends z.ZodType>(of: T) => z.array(of).optional();
const one = (name: string) => ({ properties: { [name]: {} }, required: [name] });

const dnsName = z.string().max(255).meta({ pattern: '^([-a-zA-Z0-9_]+[.]?)+$' });
const dnsPattern = z.string().max(255).meta({ pattern: '^([-a-zA-Z0-9_*]+[.]?)+$' });
const nameOrPattern = z
  .object({ matchName: dnsName.optional(), matchPattern: dnsPattern.optional() })
  .meta({ oneOf: [one('matchName'), one('matchPattern')] });

const secret = z.object({ name: z.string(), namespace: text });
const tls = z.object({ certificate: text, privateKey: text, secret, trustedCA: text }).optional();

const icmpNames = [
  'EchoReply',
  'DestinationUnreachable',
  'Redirect',
  'Echo',
  'RouterAdvertisement',
  'RouterSelection',
  'TimeExceeded',
  'ParameterProblem',
  'Timestamp',
  'TimestampReply',
  'Photuris',
  'ExtendedEchoRequest',
  'ExtendedEcho Reply',
  'PacketTooBig',
  'ParameterProblem',
  'EchoRequest',
  'MulticastListenerQuery',
  'MulticastListenerReport',
  'MulticastListenerDone',
  'RouterSolicitation',
  'RouterAdvertisement',
  'NeighborSolicitation',
  'NeighborAdvertisement',
  'RedirectMessage',
  'RouterRenumbering',
  'ICMPNodeInformationQuery',
  'ICMPNodeInformationResponse',
  'InverseNeighborDiscoverySolicitation',
  'InverseNeighborDiscoveryAdvertisement',
  'HomeAgentAddressDiscoveryRequest',
  'HomeAgentAddressDiscoveryReply',
  'MobilePrefixSolicitation',
  'MobilePrefixAdvertisement',
  'DuplicateAddressRequestCodeSuffix',
  'DuplicateAddressConfirmationCodeSuffix',
];
const byte = '[0-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5]';

const icmps = list(
  z.object({
    fields: z
      .array(
        z.object({
          family: z.enum(['IPv4', 'IPv6']).default('IPv4'),
          type: z.any().meta({
            anyOf: [{ type: 'integer' }, { type: 'string' }],
            'x-kubernetes-int-or-string': true,
            pattern: `^(${byte}|${icmpNames.join('|')})$`,
          }),
        }),
      )
      .max(40)
      .optional(),
  }),
);

const port =
  '^(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[0-9]{1,4})|([a-zA-Z0-9]-?)*[a-zA-Z](-?[a-zA-Z0-9])*$';
const portList = z.array(
  z.object({
    endPort: z.int().min(0).max(65_535).meta({ format: 'int32' }).optional(),
    port: z.string().meta({ pattern: port }).optional(),
    protocol: z.enum(['TCP', 'UDP', 'SCTP', 'VRRP', 'IGMP', 'GRE', 'IPIP', 'IPV6', 'ESP', 'AH', 'ANY']).optional(),
  }),
);
const ports = portList.max(40).optional();

const httpRule = z.object({
  headerMatches: list(
    z.object({
      mismatch: z.enum(['LOG', 'ADD', 'DELETE', 'REPLACE']).optional(),
      name: z.string().min(1),
      secret: secret.optional(),
      value: text,
    }),
  ),
  headers: list(z.string()),
  host: z.string().meta({ format: 'idn-hostname' }).optional(),
  method: text,
  path: text,
});

const toPorts = list(
  z.object({
    listener: z
      .object({
        envoyConfig: z.object({
          kind: z.enum(['CiliumEnvoyConfig', 'CiliumClusterwideEnvoyConfig']).optional(),
          name: z.string().min(1),
        }),
        name: z.string().min(1),
        priority: z.int().min(1).max(100).optional(),
      })
      .optional(),
    originatingTLS: tls,
    ports,
    rules: z
      .object({ dns: list(nameOrPattern), http: list(httpRule) })
      .meta({ oneOf: [one('http'), one('dns')] })
      .optional(),
    serverNames: z.array(dnsPattern).min(1).meta({ 'x-kubernetes-list-type': 'set' }).optional(),
    terminatingTLS: tls,
  }),
);
const toDenyPorts = list(z.object({ ports: portList.optional() }));

const entity = z.enum([
  'all',
  'world',
  'cluster',
  'cluster-mesh',
  'host',
  'init',
  'ingress',
  'unmanaged',
  'remote-node',
  'health',
  'none',
  'kube-apiserver',
]);
const cidrSet = list(
  z
    .object({
      cidr: cidr.optional(),
      cidrGroupRef: z
        .string()
        .max(253)
        .meta({ pattern: '^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$' })
        .optional(),
      cidrGroupSelector: selectorSchema.optional(),
      except: list(cidr),
    })
    .meta({ oneOf: [one('cidr'), one('cidrGroupRef'), one('cidrGroupSelector')] }),
);
const groups = list(
  z.object({
    aws: z
      .object({
        labels: z.record(z.string(), z.string()).optional(),
        region: text,
        securityGroupsIds: list(z.string()),
        securityGroupsNames: list(z.string()),
      })
      .optional(),
  }),
);
const requires = z.array(z.string()).max(0).optional();
const authentication = z.object({ mode: z.enum(['disabled', 'required', 'test-always-fail']) }).optional();
const services = list(
  z.object({
    k8sService: z.object({ namespace: text, serviceName: text }).optional(),
    k8sServiceSelector: z.object({ namespace: text, selector: selectorSchema }).optional(),
  }),
);

const from = {
  fromCIDR: list(cidr),
  fromCIDRSet: cidrSet,
  fromEndpoints: list(selectorSchema),
  fromEntities: list(entity),
  fromGroups: groups,
  fromNodes: list(selectorSchema),
  fromRequires: requires,
  icmps,
};
const to = {
  icmps,
  toCIDR: list(cidr),
  toCIDRSet: cidrSet,
  toEndpoints: list(selectorSchema),
  toEntities: list(entity),
  toGroups: groups,
  toNodes: list(selectorSchema),
  toRequires: requires,
  toServices: services,
};

const ruleSchema = z
  .object({
    description: text,
    egress: list(z.object({ ...to, authentication, toFQDNs: list(nameOrPattern), toPorts })),
    egressDeny: list(z.object({ ...to, toPorts: toDenyPorts })),
    enableDefaultDeny: z.object({ egress: z.boolean().optional(), ingress: z.boolean().optional() }).optional(),
    endpointSelector: selectorSchema.optional(),
    ingress: list(z.object({ ...from, authentication, toPorts })),
    ingressDeny: list(z.object({ ...from, toPorts: toDenyPorts })),
    labels: list(z.object({ key: z.string(), source: text, value: text })),
    log: z.object({ value: z.string().max(32).meta({ pattern: '^\\PC*$' }).optional() }).optional(),
    nodeSelector: selectorSchema.optional(),
  })
  .meta({
    oneOf: [one('endpointSelector'), one('nodeSelector')],
    anyOf: [one('ingress'), one('ingressDeny'), one('egress'), one('egressDeny')],
  });

/** A policy: the spec is the user's, the status ours. */
export const ciliumPolicySchema = z.object({
  spec: ruleSchema.optional(),
  specs: list(ruleSchema),
  status: z
    .object({
      conditions: z
        .array(
          z.object({
            lastTransitionTime: z.string().meta({ format: 'date-time' }).optional(),
            message: text,
            reason: text,
            status: z.string(),
            type: z.string(),
          }),
        )
        .meta({ 'x-kubernetes-list-type': 'map', 'x-kubernetes-list-map-keys': ['type'] })
        .optional(),
      derivativePolicies: z
        .record(
          z.string(),
          z.object({
            annotations: z.record(z.string(), z.string()).optional(),
            enforcing: z.boolean().optional(),
            error: text,
            lastUpdated: z.string().meta({ format: 'date-time' }).optional(),
            localPolicyRevision: z.int().meta({ format: 'int64' }).optional(),
            ok: z.boolean().optional(),
          }),
        )
        .optional(),
    })
    .optional(),
});

/** A named list of blocks. */
export const cidrGroupSchema = z.object({ spec: z.object({ externalCIDRs: z.array(cidr).min(0) }) });

const plainSelector = z.object({
  matchLabels: z.record(z.string(), z.string()).optional(),
  matchExpressions: z
    .array(z.object({ key: z.string(), operator: z.string(), values: z.array(z.string()).meta(atomic).optional() }))
    .meta(atomic)
    .optional(),
});
const exactlyOne = { minProperties: 1, maxProperties: 1 };
const podsSelector = z.object({ namespaceSelector: plainSelector.optional(), podSelector: plainSelector });
const portNumber = z.int().min(1).max(65_535).meta({ format: 'int32' });
const transport = z
  .object({
    destinationPort: z
      .object({
        number: portNumber.optional(),
        range: z
          .object({ start: portNumber, end: portNumber })
          .meta({
            'x-kubernetes-validations': [{ rule: 'self.start < self.end', message: 'start must be below end' }],
          })
          .optional(),
      })
      .meta(exactlyOne)
      .optional(),
  })
  .meta({ minProperties: 1 })
  .optional();
const protocols = z
  .array(z.object({ destinationNamedPort: text, sctp: transport, tcp: transport, udp: transport }).meta(exactlyOne))
  .min(1)
  .max(25)
  .optional();
const action = z.enum(['Accept', 'Deny', 'Pass']);
const ruleName = z.string().max(100).optional();
const domainName =
  '^(\\*\\.)?([a-zA-z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\\.)+[a-zA-z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\\.?$';
const set = { 'x-kubernetes-list-type': 'set' };

/** A ClusterNetworkPolicy of policy.networking.k8s.io/v1alpha2. */
export const clusterNetworkPolicySchema = z.object({
  spec: z.object({
    egress: z
      .array(
        z
          .object({
            action,
            name: ruleName,
            protocols,
            to: z
              .array(
                z
                  .object({
                    domainNames: z
                      .array(z.string().meta({ pattern: domainName }))
                      .min(1)
                      .max(25)
                      .meta(set)
                      .optional(),
                    namespaces: plainSelector.optional(),
                    networks: z
                      .array(
                        z
                          .string()
                          .max(43)
                          .meta({
                            'x-kubernetes-validations': [{ rule: 'isCIDR(self)', message: 'must be a block' }],
                          }),
                      )
                      .min(1)
                      .max(25)
                      .meta(set)
                      .optional(),
                    nodes: plainSelector.optional(),
                    pods: podsSelector.optional(),
                  })
                  .meta(exactlyOne),
              )
              .min(1)
              .max(25),
          })
          .meta({
            'x-kubernetes-validations': [
              {
                rule: '!(self.to.exists(peer, has(peer.networks) || has(peer.nodes) || has(peer.domainNames)) && has(self.protocols) && self.protocols.exists(protocol, has(protocol.destinationNamedPort)))',
                message: 'networks, nodes and domain names have no named ports',
              },
            ],
          }),
      )
      .max(25)
      .optional(),
    ingress: z
      .array(
        z.object({
          action,
          from: z
            .array(z.object({ namespaces: plainSelector.optional(), pods: podsSelector.optional() }).meta(exactlyOne))
            .min(1)
            .max(25),
          name: ruleName,
          protocols,
        }),
      )
      .max(25)
      .optional(),
    priority: z.int().min(0).max(1000).meta({ format: 'int32' }),
    subject: z.object({ namespaces: plainSelector.optional(), pods: podsSelector.optional() }).meta(exactlyOne),
    tier: z.enum(['Admin', 'Baseline']),
  }),
  status: z
    .object({
      conditions: z
        .array(conditionSchema)
        .meta({ 'x-kubernetes-list-type': 'map', 'x-kubernetes-list-map-keys': ['type'] }),
    })
    .optional(),
});
