// Answers `policy why`: finds who is meant by both ends and explains each pair of them.
import { WeirError } from '../../core/errors.ts';
import type { PolicyServiceRow } from '../../core/rows.ts';
import type { PolicyModel, Service } from './evaluate.ts';
import { type Explanation, explain, serviceText } from './explain.ts';
import { type Ends, findEnds, type NamedParty, parseService } from './parties.ts';

/** The answer about one pair of ends. */
export interface PolicyWhy extends Explanation {
  readonly from: string;
  readonly to: string;
  readonly service: string;
}

/** All answers. */
export interface WhyAnswers {
  readonly answers: readonly PolicyWhy[];
  /** How many pairs there are beyond those that were looked at. */
  readonly more: number;
  /** An end that is not known. */
  readonly notFound?: { readonly reason: string; readonly hint: string };
}

const maxPairs = 20;

/** Reads a port. Throws CONFIG_INVALID for what is none. */
function wantedService(port: string): Service {
  const service = parseService(port);
  if (service !== undefined) return service;
  throw new WeirError('CONFIG_INVALID', `${port} is no port`, 'Write 443, 53/udp, sctp/3868, icmp or icmpv6/128.');
}

/** Answers the question for ends as people name them; see `findEnds`. Throws CONFIG_INVALID for what is no port. */
export function answerWhy(
  model: PolicyModel,
  services: readonly PolicyServiceRow[],
  question: { readonly from: string; readonly to: string; readonly port: string },
): WhyAnswers {
  const service = wantedService(question.port);
  const [sources, destinations] = [question.from, question.to].map((text) => findEnds(model, services, text));
  for (const found of [sources!, destinations!]) {
    if (!found.ok) return { answers: [], more: 0, notFound: { reason: found.reason, hint: found.hint } };
  }
  const ends = (found: Ends): readonly NamedParty[] => (found.ok ? found.ends : []);
  const pairs = ends(sources!).flatMap((from) => ends(destinations!).map((to) => ({ from, to })));
  const answers = pairs.slice(0, maxPairs).map(({ from, to }): PolicyWhy => {
    const nameOf = (party: NamedParty['party']) => (party === from.party ? from.name : to.name);
    const explanation = explain(model, from.party, to.party, service, nameOf);
    return { from: from.name, to: to.name, service: serviceText(service), ...explanation };
  });
  return { answers, more: pairs.length - answers.length };
}
