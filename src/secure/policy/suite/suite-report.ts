// Results of suites as TAP 14 (testanything.org) and as JUnit's XML, which every CI system shows.
import type { AssertionResult } from './run-suite.ts';

/** A suite that ran. */
export interface SuiteResult {
  readonly file: string;
  readonly results: readonly AssertionResult[];
}

/** TAP; `explain` says in words why a result is as it is. */
export function tapText(suites: readonly SuiteResult[], explain: (result: AssertionResult) => string): string {
  const all = suites.flatMap(({ file, results }) => results.map((result) => ({ file, result })));
  const lines = all.flatMap(({ file, result }, i) => [
    `${result.ok ? 'ok' : 'not ok'} ${i + 1} - ${oneLine(result.name)}`,
    ...(result.ok
      ? []
      : [
          `# ${file}:${result.line}`,
          ...explain(result)
            .trimEnd()
            .split('\n')
            .map((line) => `# ${line}`),
        ]),
  ]);
  return `TAP version 14\n1..${all.length}\n${lines.map((line) => `${line}\n`).join('')}`;
}

/** JUnit's XML. */
export function junitText(suites: readonly SuiteResult[], explain: (result: AssertionResult) => string): string {
  const parts = suites.map(({ file, results }) => {
    const failed = results.filter(({ ok }) => !ok).length;
    const cases = results.map((result) => {
      const head = `    <testcase name="${xml(result.name)}" classname="${xml(file)}" file="${xml(file)}" line="${result.line}"`;
      if (result.ok) return `${head}/>\n`;
      const message = result.problem ?? `expected ${result.expect}, got ${result.got}`;
      return `${head}>\n      <failure message="${xml(message)}">${xml(explain(result))}</failure>\n    </testcase>\n`;
    });
    return `  <testsuite name="${xml(file)}" tests="${results.length}" failures="${failed}">\n${cases.join('')}  </testsuite>\n`;
  });
  return `<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>\n${parts.join('')}</testsuites>\n`;
}

function oneLine(text: string): string {
  return text.replace(/\s+/g, ' ').replaceAll('#', '\\#');
}

function xml(text: string): string {
  const names: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
  // biome-ignore lint/suspicious/noControlCharactersInRegex: XML has no way to write these
  return text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f]/g, '?').replace(/[&<>"]/g, (each) => names[each]!);
}
