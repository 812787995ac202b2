// Filters written as expressions of CEL over the flow, `_flow`, as a message of the contract. They come from strangers:
// what one costs is estimated from its text before it is taken, and measured while it runs.
import type * as Cel from '@bufbuild/cel';
import type { Expr } from '@bufbuild/cel-spec/cel/expr/syntax_pb.js';
import { create, createRegistry } from '@bufbuild/protobuf';
import { type Flow, FlowSchema, file_flow_flow } from '../../../proto/gen/flow/flow_pb.js';
import type { Parsed } from '../../core/ip.ts';
import { loadModule } from './load-module.ts';
import { compilePattern, type TextMatch } from './safe-pattern.ts';

/** Whether the expression is true of a flow. What cannot be evaluated, such as a field of nothing, is not true. */
export type CelMatch = (flow: Flow) => boolean;

/** An expression that takes more of the machine than was thought. */
export class CelTooDear extends Error {}

const maxChars = 4_096;
/** Steps that an expression may need, by the estimate. */
const maxCost = 100_000;
/** What a list or text of a flow is taken to have; there is no telling before it is there. */
const assumedSize = 64;
/** An evaluation that takes longer than this, several times, ends the stream. */
const slowMs = 10;
const slowAllowed = 5;

const patterns = new Map<string, TextMatch>();
let evaluator: { readonly cel: typeof Cel; readonly env: Cel.CelEnv } | undefined;

/** The library is loaded with the first expression. */
function celEvaluator(): typeof evaluator & {} {
  if (evaluator === undefined) {
    const cel = loadModule<typeof Cel>('@bufbuild/cel');
    const env = cel.celEnv({
      namespace: 'flow',
      registry: createRegistry(file_flow_flow),
      re2: { compile: (pattern) => ({ test: knownPattern(pattern) }) },
    });
    evaluator = { cel, env };
  }
  return evaluator;
}

/** Patterns are compiled once: the evaluator asks again for every flow. */
function knownPattern(pattern: string): TextMatch {
  let match = patterns.get(pattern);
  if (match === undefined) {
    const compiled = compilePattern(pattern);
    if (!compiled.ok) throw new Error(`the pattern ${compiled.reason}`);
    match = compiled.value;
    if (patterns.size >= 256) patterns.clear();
    patterns.set(pattern, match);
  }
  return match;
}

/** Compiles an expression; the reason says what is wrong with it. */
export function compileCel(text: string): Parsed<CelMatch> {
  if (text.length > maxChars) return { ok: false, reason: `is longer than ${maxChars} characters` };
  const { cel, env } = celEvaluator();
  let evaluate: (values: { _flow: Flow }) => Cel.CelResult;
  try {
    const { expr } = cel.parse(text);
    const bad = badPattern(expr);
    if (bad !== undefined) return { ok: false, reason: bad };
    const { cost } = costOf(expr);
    if (cost > maxCost) return { ok: false, reason: 'would take too long: it goes through lists within lists' };
    evaluate = cel.plan(env, expr) as typeof evaluate;
    const tried = evaluate({ _flow: create(FlowSchema) });
    // What is missing in an empty flow may be there in another; a name that nothing has is missing in all.
    if (cel.isCelError(tried)) {
      // Extensions have fields that no contract names.
      if (
        !text.includes('.extensions') &&
        /field not found|unresolved|no such overload|unbound|unknown/i.test(tried.message)
      )
        return { ok: false, reason: tried.message };
    } else if (typeof tried !== 'boolean' && tried !== null) return { ok: false, reason: 'is not true or false' };
  } catch (error) {
    return { ok: false, reason: error instanceof RangeError ? 'is nested too deeply' : (error as Error).message };
  }
  let slow = 0;
  return {
    ok: true,
    value(flow) {
      const started = performance.now();
      const result = evaluate({ _flow: flow });
      if (performance.now() - started > slowMs && ++slow > slowAllowed)
        throw new CelTooDear('experimental.cel_expression: takes too long');
      return result === true;
    },
  };
}

/** Patterns must be there in full: one made of the flow would be compiled for each. */
function badPattern(expr: Expr): string | undefined {
  const call = expr.exprKind.case === 'callExpr' ? expr.exprKind.value : undefined;
  if (call?.function === 'matches') {
    const constant = call.args.at(-1)?.exprKind;
    if (constant?.case !== 'constExpr' || constant.value.constantKind.case !== 'stringValue')
      return 'has a pattern of matches() that is not a text';
    const compiled = compilePattern(constant.value.constantKind.value);
    if (!compiled.ok) return `has a pattern that ${compiled.reason}`;
  }
  for (const below of childrenOf(expr)) {
    const bad = badPattern(below);
    if (bad !== undefined) return bad;
  }
  return undefined;
}

function childrenOf({ exprKind: kind }: Expr): Expr[] {
  const there = (list: (Expr | undefined)[]) => list.filter((each) => each !== undefined);
  switch (kind.case) {
    case 'callExpr':
      return there([kind.value.target, ...kind.value.args]);
    case 'listExpr':
      return kind.value.elements;
    case 'selectExpr':
      return there([kind.value.operand]);
    case 'structExpr':
      return there(
        kind.value.entries.flatMap((entry) => [
          entry.keyKind.case === 'mapKey' ? entry.keyKind.value : undefined,
          entry.value,
        ]),
      );
    case 'comprehensionExpr': {
      const { iterRange, accuInit, loopCondition, loopStep, result } = kind.value;
      return there([iterRange, accuInit, loopCondition, loopStep, result]);
    }
    default:
      return [];
  }
}

/** Steps to evaluate an expression, and how many parts the value has that comes out. */
function costOf(expr: Expr): { cost: number; size: number } {
  const { exprKind: kind } = expr;
  if (kind.case === 'comprehensionExpr') {
    const { iterRange, loopCondition, loopStep, result } = kind.value;
    const range = iterRange === undefined ? { cost: 0, size: assumedSize } : costOf(iterRange);
    const each = [loopCondition, loopStep].reduce((sum, part) => sum + (part === undefined ? 0 : costOf(part).cost), 1);
    const last = result === undefined ? 0 : costOf(result).cost;
    return { cost: range.cost + range.size * each + last, size: range.size };
  }
  const below = childrenOf(expr).map(costOf);
  const cost = below.reduce((sum, each) => sum + each.cost, 1);
  const size = below.reduce((sum, each) => sum + each.size, 0);
  switch (kind.case) {
    case 'constExpr': {
      const { constantKind: constant } = kind.value;
      return { cost: 1, size: constant.case === 'stringValue' ? constant.value.length : 1 };
    }
    case 'listExpr':
      return { cost, size: Math.max(below.length, size) };
    case 'callExpr':
      // Texts and lists grow by adding; a pattern is held against each character of the text.
      if (kind.value.function === 'matches')
        return { cost: cost + (below[0]!.size * (below.at(-1)?.size ?? 1)) / 16, size: 1 };
      return { cost: cost + size / 64, size: Math.max(size, assumedSize) };
    case 'structExpr':
      return { cost, size: Math.max(below.length, size) };
    default:
      return { cost, size: Math.max(size, assumedSize) };
  }
}
