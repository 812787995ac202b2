// `weir policy why` on a node: who may talk with whom and by which rule, from the tables that the kernel is written from.
import { WeirError } from '../../core/errors.ts';
import { reservedIdentityRows } from '../../core/identity.ts';
import type { PolicyModel } from '../../secure/policy/evaluate.ts';
import { type Explanation, explain, serviceText } from '../../secure/policy/explain.ts';
import { type Ends, findEnds, type NamedParty, parseService } from '../../secure/policy/parties.ts';
import type { Agent } from './agent.ts';

/** The answer about one pair of ends. */
export interface PolicyWhy extends Explanation {
  readonly from: string;
  readonly to: string;
  readonly service: string;
}

/** All answers of one node. */
export interface PolicyWhyView {
  readonly node: string;
  readonly answers: readonly PolicyWhy[];
  /** How many pairs there are beyond those that were looked at. */
  readonly more: number;
  /** An end that this node does not know. */
  readonly notFound?: { readonly reason: string; readonly hint: string };
}

const maxPairs = 20;

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
  const model = policyModel(agent);
  const port = query.get('port') ?? '80/tcp';
  const service = parseService(port);
  if (service === undefined) {
    throw new WeirError('CONFIG_INVALID', `${port} is no port`, 'Write 443, 53/udp, sctp/3868, icmp or icmpv6/128.');
  }
  const services = [...agent.policies.services.rows()];
  const [sources, destinations] = ['from', 'to'].map((name) => findEnds(model, services, query.get(name) ?? ''));
  const node = agent.settings.nodeName;
  for (const found of [sources!, destinations!]) {
    if (!found.ok) return { node, answers: [], more: 0, notFound: { reason: found.reason, hint: found.hint } };
  }
  const ends = (found: Ends): readonly NamedParty[] => (found.ok ? found.ends : []);
  const pairs = ends(sources!).flatMap((from) => ends(destinations!).map((to) => ({ from, to })));
  const answers = pairs.slice(0, maxPairs).map(({ from, to }): PolicyWhy => {
    const nameOf = (party: NamedParty['party']) => (party === from.party ? from.name : to.name);
    const explanation = explain(model, from.party, to.party, service, nameOf);
    return { from: from.name, to: to.name, service: serviceText(service), ...explanation };
  });
  return { node, answers, more: pairs.length - answers.length };
}
