// `weir policy why` on a node: who may talk with whom and by which rule, from the tables that the kernel is written from.
import { reservedIdentityRows } from '../../core/identity.ts';
import type { PolicyModel } from '../../secure/policy/evaluate.ts';
import type { NodePolicyModel } from '../../secure/policy/impact.ts';
import { answerWhy, type WhyAnswers } from '../../secure/policy/why.ts';
import type { Agent } from './agent.ts';

/** All answers of one node. */
export interface PolicyWhyView extends WhyAnswers {
  readonly node: string;
}

/** What policy sees on a node. */
export function policyModel({ sources, addresses, prefixes, policies }: Agent): PolicyModel {
  return {
    identities: [...reservedIdentityRows(), ...sources.identities.rows()],
    namespaces: [...sources.namespaces.rows()],
    addresses: [...addresses.rows()],
    prefixes: [...prefixes.rows()],
    policies: [...policies.policies.rows()],
  };
}

/** Answers the question. Throws CONFIG_INVALID for what is no port. */
export function policyWhy(agent: Agent, query: URLSearchParams): PolicyWhyView {
  const question = {
    from: query.get('from') ?? '',
    to: query.get('to') ?? '',
    port: query.get('port') ?? '80/tcp',
  };
  return {
    node: agent.settings.nodeName,
    ...answerWhy(policyModel(agent), [...agent.policies.services.rows()], question),
  };
}

/** All that policy sees on a node, for questions about policies that are not there yet. */
export function nodePolicyModel(agent: Agent): NodePolicyModel {
  const { sources, policies, settings } = agent;
  return {
    node: settings.nodeName,
    model: policyModel(agent),
    clusterStaged: settings.policyEnforcement === 'staged',
    nodes: [...sources.nodes.rows()],
    cidrGroups: [...policies.cidrGroups.rows()],
    services: [...policies.services.rows()],
    objects: [...policies.objects.rows()],
  };
}
