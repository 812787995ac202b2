// Whether a rule is about everything that another is about, told from what is written and not from who happens to be there.
import { metaLabels } from '../../../core/identity.ts';
import { cidrContains, parseCidr } from '../../../core/ip.ts';
import type { LabelSelector, Requirement } from '../../../core/labels.ts';
import type { PolicyPeer, PolicyPort, PolicyRow, PolicyRule } from '../../../core/rows.ts';
import { type Span, spansOf, wholeSpace } from '../diff/port-space.ts';

/** Whether all connections of `inner` are connections of `outer`. False where that cannot be told. */
export function ruleCovers(outer: PolicyRule, inner: PolicyRule): boolean {
  return !outer.sparesOwnNode && peersCover(outer.peers, inner.peers) && portsCover(outer.ports, inner.ports);
}

/** Whether all subjects of `inner` are subjects of `outer`. */
export function subjectCovers(outer: PolicyRow, inner: PolicyRow): boolean {
  if (outer.subject.kind === 'node' || inner.subject.kind === 'node') return outer.subject.kind === inner.subject.kind;
  if (outer.namespace !== '' && outer.namespace !== inner.namespace) return false;
  return selectorCovers(outer.subject.selector, inner.subject.selector);
}

function peersCover(outer: readonly PolicyPeer[] | undefined, inner: readonly PolicyPeer[] | undefined): boolean {
  if (outer === undefined) return true;
  if (inner === undefined || inner.length === 0) return false;
  return inner.every((each) => outer.some((peer) => peerCovers(peer, each)));
}

function peerCovers(outer: PolicyPeer, inner: PolicyPeer): boolean {
  if (outer.kind === 'endpoints') return inner.kind === 'endpoints' && selectorCovers(outer.selector, inner.selector);
  if (outer.kind === 'reserved') {
    return inner.kind === 'reserved' && inner.identities.every((each) => outer.identities.includes(each));
  }
  if (inner.kind !== 'block') return false;
  const reaches = ['outside', 'not-pods', 'any'];
  if (reaches.indexOf(outer.reach) < reaches.indexOf(inner.reach)) return false;
  if (!contains(outer.cidr, inner.cidr)) return false;
  // What the outer one leaves out must be left out of the inner one as well, or have nothing to do with it.
  return outer.except.every(
    (hole) =>
      inner.except.some((each) => contains(each, hole)) || !(contains(inner.cidr, hole) || contains(hole, inner.cidr)),
  );
}

function contains(outer: string, inner: string): boolean {
  const [a, b] = [parseCidr(outer), parseCidr(inner)];
  return a.ok && b.ok && cidrContains(a.value, b.value);
}

/** Whether every condition of the outer selector follows from one of the inner. */
function selectorCovers(outer: LabelSelector, inner: LabelSelector): boolean {
  const given = requirementsOf(inner);
  return requirementsOf(outer).every((wanted) => given.some((each) => implies(each, wanted)));
}

function requirementsOf({ matchLabels, matchExpressions }: LabelSelector): Requirement[] {
  const labels = Object.entries(matchLabels).map(
    ([key, value]): Requirement => ({ key, operator: 'In', values: [value] }),
  );
  return [...labels, ...matchExpressions];
}

function implies(given: Requirement, wanted: Requirement): boolean {
  if (wanted.key === metaLabels.namespace && wanted.operator === 'Exists') return true;
  if (given.key !== wanted.key) return false;
  const { values } = given;
  switch (wanted.operator) {
    case 'In':
      return given.operator === 'In' && values.every((value) => wanted.values.includes(value));
    case 'Exists':
      return given.operator === 'In' || given.operator === 'Exists';
    case 'DoesNotExist':
      return given.operator === 'DoesNotExist';
    case 'NotIn':
      if (given.operator === 'DoesNotExist') return true;
      if (given.operator === 'NotIn') return wanted.values.every((value) => values.includes(value));
      return given.operator === 'In' && values.every((value) => !wanted.values.includes(value));
  }
}

function portsCover(outer: readonly PolicyPort[] | undefined, inner: readonly PolicyPort[] | undefined): boolean {
  if (outer === undefined) return true;
  if (inner === undefined || inner.length === 0) return false;
  const spans = outer === undefined ? [...wholeSpace] : spansOf(outer, []);
  return inner.every((port) => {
    if (port.kind === 'named') {
      const same = outer.some(
        (each) => each.kind === 'named' && each.name === port.name && each.protocol === port.protocol,
      );
      return (
        same ||
        outer.some((each) => each.kind === 'all' && each.protocol === { TCP: 6, UDP: 17, SCTP: 132 }[port.protocol])
      );
    }
    return spansOf([port], []).every((span) => spans.some((each) => inside(each, span)));
  });
}

function inside(outer: Span, inner: Span): boolean {
  return outer[0] <= inner[0] && inner[1] <= outer[1];
}
