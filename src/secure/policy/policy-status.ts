// What the status of a policy says: whether it is understood, and where it is in force.
import type { PolicyObjectRow } from '../../core/rows.ts';

/** A condition before it has a time. */
export interface PolicyCondition {
  readonly type: string;
  readonly status: 'True' | 'False' | 'Unknown';
  readonly reason: string;
  readonly message: string;
}

/** How far a node is with a policy. */
export interface NodeProgress {
  readonly node: string;
  /** It has compiled the policy as it is now, and written it to the kernel. */
  readonly reached: boolean;
  /** The agent's count of changes at which it did. */
  readonly revision?: number;
  /** What keeps it from enforcing all of its policies. */
  readonly problem?: string;
  /** In one word; without one it has no room. */
  readonly reason?: string;
}

/** With more nodes than this the condition of the cluster names those that lag, and nodes have none of their own. */
const nodesWithConditions = 10;
const namesShown = 5;
const maxMessage = 1_024;

/** The type of a node's own condition. */
function nodeConditionType(node: string): string {
  return `${node}/Enforced`;
}

/** What is said of rules that use what is not enforced yet, before their places. */
export function unenforcedText(kind: PolicyObjectRow['kind'] | undefined): string {
  return kind === 'ClusterNetworkPolicy'
    ? 'not enforced yet; a rule that denies keeps its other peers, any other counts for nothing'
    : 'not enforced yet; these rules isolate, and allow nothing';
}

/** What a status is made of. */
type Judged = Pick<PolicyObjectRow, 'error' | 'unenforced'> & Partial<Pick<PolicyObjectRow, 'kind' | 'remarks'>>;

/** The conditions of a policy, in order. */
export function policyConditions(policy: Judged, staged: boolean, nodes: readonly NodeProgress[]): PolicyCondition[] {
  const { error, remarks = [] } = policy;
  const valid: PolicyCondition =
    error === undefined
      ? {
          type: 'Valid',
          status: 'True',
          reason: remarks.length === 0 ? 'Understood' : 'WithRemarks',
          message: cut(['The policy is understood', ...remarks].join('; ')),
        }
      : {
          type: 'Valid',
          status: 'False',
          reason: 'NotUnderstood',
          message: cut(`${error}. Until it is mended it isolates whom it selects, and allows nothing`),
        };
  const own = nodes.length > nodesWithConditions ? [] : nodes;
  return [valid, clusterCondition(policy, staged, nodes), ...own.map(nodeCondition)];
}

function clusterCondition(
  { error, unenforced, kind }: Judged,
  staged: boolean,
  nodes: readonly NodeProgress[],
): PolicyCondition {
  const type = 'Enforced';
  const late = lateOf(nodes);
  // Without numbers when all have it: a node that comes or goes changes the status of no policy.
  const on =
    late.length === 0 ? 'on every node that has reported' : `on ${nodes.length - late.length} of ${nodes.length} nodes`;
  const missing =
    late.length === 0
      ? ''
      : `; not on ${late.slice(0, namesShown).join(', ')}${late.length > namesShown ? ' and others' : ''}`;
  if (error !== undefined) {
    const message = `It isolates whom it selects and allows nothing, ${on}${missing}`;
    return { type, status: 'False', reason: 'NotUnderstood', message };
  }
  if (staged) return { type, status: 'False', reason: 'Staged', message: `Reported only, ${on}${missing}` };
  if (unenforced.length > 0) {
    const places = unenforced.join(', ');
    const message = cut(`In part ${unenforcedText(kind)}: ${places}. The others are, ${on}${missing}`);
    return { type, status: 'False', reason: 'InPart', message };
  }
  if (nodes.length === 0)
    return { type, status: 'False', reason: 'Pending', message: 'No node has said that it has it' };
  return late.length === 0
    ? { type, status: 'True', reason: 'Enforced', message: `In force ${on}` }
    : { type, status: 'False', reason: 'Pending', message: `In force ${on}${missing}` };
}

/** Names those that lag. Many policies share one list of nodes, which is looked through once. */
function lateOf(nodes: readonly NodeProgress[]): readonly string[] {
  let late = lateNodes.get(nodes);
  if (late === undefined) {
    late = nodes.filter((node) => !node.reached || node.problem !== undefined).map((node) => node.node);
    lateNodes.set(nodes, late);
  }
  return late;
}

const lateNodes = new WeakMap<readonly NodeProgress[], readonly string[]>();

function nodeCondition({ node, reached, revision, problem, reason = 'NoRoom' }: NodeProgress): PolicyCondition {
  const type = nodeConditionType(node);
  const at = revision === undefined ? '' : ` at revision ${revision}`;
  if (problem !== undefined) return { type, status: 'False', reason, message: cut(problem) };
  return reached
    ? { type, status: 'True', reason: 'Enforced', message: `In the kernel${at}` }
    : { type, status: 'False', reason: 'Pending', message: 'The node has not said that it has it' };
}

function cut(text: string): string {
  return text.length <= maxMessage ? text : `${text.slice(0, maxMessage - 3)}...`;
}
