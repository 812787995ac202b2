// Who may write what of weir.dev, enforced by the API server itself: an agent writes the endpoint slices of its own node,
// with addresses of that node's blocks, and nothing else. Whoever may change this rule is not bound by it.
import { hasStatus, type KubeClient } from '../client.ts';
import { type KubeObject, kubernetesResources } from '../resource.ts';

/** The rule about whose node an object is of, and the rule about addresses. */
const admissionNames = { ownNode: 'weir-own-node', ownBlock: 'weir-own-block' } as const;

/** The label that every slice carries. */
const nodeLabel = 'weir.dev/node';
const apiVersion = 'admissionregistration.k8s.io/v1';

/** `kubelet` and agent certificates name their node; the token of a service account does when it is bound to one. */
const nodeOfUser = [
  "request.userInfo.username.startsWith('weir-agent:') && 'weir:agents' in request.userInfo.groups",
  "? request.userInfo.username.substring(size('weir-agent:'))",
  ": request.userInfo.username.startsWith('system:node:') && 'system:nodes' in request.userInfo.groups",
  "? request.userInfo.username.substring(size('system:node:'))",
  ": has(request.userInfo.extra) && 'authentication.kubernetes.io/node-name' in request.userInfo.extra",
  "? request.userInfo.extra['authentication.kubernetes.io/node-name'][0]",
  ": ''",
].join(' ');

const mayChangeRule = (name: string) =>
  `authorizer.group('admissionregistration.k8s.io').resource('validatingadmissionpolicies').name('${name}').check('patch').allowed()`;

const writes = ['CREATE', 'UPDATE', 'DELETE'];
const rule = (resources: string[], operations = writes) => ({
  apiGroups: ['weir.dev'],
  apiVersions: ['*'],
  operations,
  resources,
});

/** A user, quoted for a message. */
const user = "'\"' + request.userInfo.username + '\"'";

function ownNodePolicy(): KubeObject & { spec: unknown } {
  const isSlice = "request.resource.resource == 'weirendpointslices'";
  return {
    apiVersion,
    kind: 'ValidatingAdmissionPolicy',
    metadata: { name: admissionNames.ownNode },
    spec: {
      failurePolicy: 'Fail',
      matchConstraints: { resourceRules: [rule(['*/*'])] },
      matchConditions: [
        { name: 'bound-by-the-rule', expression: `!(${mayChangeRule(admissionNames.ownNode)})` },
        // People write these; who may is a matter of their roles.
        { name: 'of-the-machinery', expression: "request.resource.resource != 'flowaccesses'" },
      ],
      variables: [
        { name: 'node', expression: nodeOfUser },
        { name: 'isSlice', expression: isSlice },
        {
          name: 'isOwnStatus',
          expression:
            "request.resource.resource == 'weirnodes' && request.subResource == 'status' && request.operation == 'UPDATE'" +
            " && variables.node != '' && object.metadata.name == variables.node",
        },
        {
          name: 'isOwnReport',
          expression:
            "request.resource.resource == 'weirnodereports' && request.operation != 'DELETE'" +
            " && variables.node != '' && object.metadata.name == variables.node",
        },
      ],
      validations: [
        {
          expression: 'variables.isSlice || variables.isOwnStatus || variables.isOwnReport',
          messageExpression: `'weir: ' + ${user} + ' may not write ' + request.resource.resource + ': only the operator does'`,
        },
        {
          expression: "!variables.isSlice || variables.node != ''",
          messageExpression: `'weir: ' + ${user} + ' is bound to no node: only the agent of a node writes its endpoint slices'`,
        },
        {
          expression: '!variables.isSlice || oldObject == null || oldObject.node == variables.node',
          messageExpression: `'weir: ' + ${user} + ' may not change an endpoint slice of node "' + oldObject.node + '"'`,
        },
        {
          expression: '!variables.isSlice || object == null || object.node == variables.node',
          messageExpression: `'weir: ' + ${user} + ' may not write an endpoint slice of node "' + object.node + '"'`,
        },
        {
          expression:
            "!variables.isSlice || object == null || (object.metadata.name.startsWith(variables.node + '-')" +
            " && object.metadata.name.substring(size(variables.node) + 1).matches('^[0-9]+$')" +
            ` && has(object.metadata.labels) && '${nodeLabel}' in object.metadata.labels` +
            ` && object.metadata.labels['${nodeLabel}'] == variables.node)`,
          messageExpression: `'weir: an endpoint slice of node "' + variables.node + '" is named "' + variables.node + '-NUMBER" and labelled ${nodeLabel}=' + variables.node`,
        },
      ],
    },
  };
}

function ownBlockPolicy(): KubeObject & { spec: unknown } {
  const inside = (family: 'ipv4' | 'ipv6') =>
    `!has(e.${family}) || (isIP(e.${family}) && params.spec.podCIDRs.exists(c, cidr(c).containsIP(e.${family})))`;
  return {
    apiVersion,
    kind: 'ValidatingAdmissionPolicy',
    metadata: { name: admissionNames.ownBlock },
    spec: {
      failurePolicy: 'Fail',
      paramKind: { apiVersion: 'weir.dev/v1alpha1', kind: 'WeirNode' },
      matchConstraints: { resourceRules: [rule(['weirendpointslices'], ['CREATE', 'UPDATE'])] },
      matchConditions: [{ name: 'bound-by-the-rule', expression: `!(${mayChangeRule(admissionNames.ownBlock)})` }],
      variables: [
        {
          name: 'strange',
          expression: `object.endpoints.filter(e, !((${inside('ipv4')}) && (${inside('ipv6')})))`,
        },
      ],
      validations: [
        {
          expression: 'size(variables.strange) == 0',
          messageExpression:
            `'weir: pod "' + variables.strange[0].namespace + '/' + variables.strange[0].pod + '" has an address outside ` +
            `the blocks of node "' + params.metadata.name + '": ' + params.spec.podCIDRs.join(', ')`,
        },
      ],
    },
  };
}

/** The binding by which the slices of one node are held against that node's blocks: the rule above sees to the label. */
function blockBinding(node: string): KubeObject & { spec: unknown } {
  return {
    apiVersion,
    kind: 'ValidatingAdmissionPolicyBinding',
    metadata: { name: `${admissionNames.ownBlock}-${node}`, labels: { [nodeLabel]: node } },
    spec: {
      policyName: admissionNames.ownBlock,
      validationActions: ['Deny'],
      paramRef: { name: node, parameterNotFoundAction: 'Deny' },
      matchResources: { objectSelector: { matchLabels: { [nodeLabel]: node } } },
    },
  };
}

/** The rules that hold for all nodes. */
function admissionRules(): (KubeObject & { spec: unknown })[] {
  return [
    ownNodePolicy(),
    ownBlockPolicy(),
    {
      apiVersion,
      kind: 'ValidatingAdmissionPolicyBinding',
      metadata: { name: admissionNames.ownNode },
      spec: { policyName: admissionNames.ownNode, validationActions: ['Deny'] },
    },
  ];
}

/** Installs or updates the rules. False when the API server knows no such rules (before Kubernetes 1.30). */
export async function installAdmission(client: KubeClient): Promise<boolean> {
  try {
    for (const each of admissionRules()) {
      const isPolicy = each.kind === 'ValidatingAdmissionPolicy';
      await client.apply(
        isPolicy ? kubernetesResources.admissionPolicies : kubernetesResources.admissionPolicyBindings,
        each,
      );
    }
    return true;
  } catch (error) {
    if (hasStatus(error, 404)) return false;
    throw error;
  }
}

/** Binds the slices of a node to its blocks, before it has any. */
export async function bindNode(client: KubeClient, node: string): Promise<void> {
  await client.apply(kubernetesResources.admissionPolicyBindings, blockBinding(node));
}

/** Forgets a node that is gone. */
export async function unbindNode(client: KubeClient, node: string): Promise<void> {
  try {
    await client.delete(kubernetesResources.admissionPolicyBindings, `${admissionNames.ownBlock}-${node}`);
  } catch (error) {
    if (!hasStatus(error, 404)) throw error;
  }
}
