// Runs a suite's assertions against a model: every pair of the ends that an assertion names must be as it says.
import type { PolicyServiceRow } from '../../../core/rows.ts';
import type { PolicyModel } from '../evaluate.ts';
import { answerWhy, type PolicyWhy } from '../why.ts';
import type { Assertion, Expectation } from './read-suite.ts';

/** What came of one assertion. */
export interface AssertionResult extends Assertion {
  readonly ok: boolean;
  /** Of the pair that is otherwise, else of the first. */
  readonly got?: Expectation;
  /** Why, of a failure. */
  readonly why?: PolicyWhy;
  /** An end that is not known. */
  readonly problem?: string;
}

/** Runs all assertions. */
export function runSuite(
  model: PolicyModel,
  services: readonly PolicyServiceRow[],
  assertions: readonly Assertion[],
): AssertionResult[] {
  return assertions.map((assertion) => {
    const { answers, notFound } = answerWhy(model, services, assertion);
    if (notFound !== undefined) return { ...assertion, ok: false, problem: `${notFound.reason}. ${notFound.hint}` };
    const wrong = answers.find((why) => !agrees(assertion.expect, gotOf(why)));
    const got = gotOf(wrong ?? answers[0]!);
    return wrong === undefined ? { ...assertion, ok: true, got } : { ...assertion, ok: false, got, why: wrong };
  });
}

function gotOf({ egress, ingress }: PolicyWhy): Expectation {
  if (!egress.allowed && !ingress.allowed) return 'denied';
  if (!egress.allowed) return 'egress denied';
  return ingress.allowed ? 'allowed' : 'ingress denied';
}

/** `denied` at both ends is as good as what either end alone was to say. */
function agrees(expected: Expectation, got: Expectation): boolean {
  if (expected === 'allowed' || got === 'allowed') return expected === got;
  return expected === 'denied' || got === 'denied' || expected === got;
}
