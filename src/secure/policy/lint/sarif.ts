// Findings as SARIF 2.1.0, which code hosts show beside the lines. Source: OASIS, "Static Analysis Results Interchange
// Format (SARIF) Version 2.1.0".
import { type Finding, findingKinds } from './findings.ts';

/** The log; `version` is Weir's own. */
export function sarifLog(findings: readonly Finding[], version: string): Readonly<Record<string, unknown>> {
  const codes = Object.keys(findingKinds);
  return {
    $schema: 'https://json.schemastore.org/sarif-2.1.0.json',
    version: '2.1.0',
    runs: [
      {
        tool: {
          driver: {
            name: 'weir policy validate',
            version,
            rules: Object.entries(findingKinds).map(([id, { severity, meaning, hint }]) => ({
              id,
              shortDescription: { text: meaning },
              help: { text: `${hint[0]!.toUpperCase()}${hint.slice(1)}.` },
              defaultConfiguration: { level: severity },
            })),
          },
        },
        columnKind: 'utf16CodeUnits',
        results: findings.map(({ file, line, column, severity, code, message, hint }) => ({
          ruleId: code,
          ruleIndex: codes.indexOf(code),
          level: severity,
          message: { text: `${message} (${hint})` },
          locations: [
            {
              physicalLocation: {
                artifactLocation: { uri: uriOf(file) },
                region: { startLine: line, startColumn: column },
              },
            },
          ],
        })),
      },
    ],
  };
}

/** A relative or absolute path as a URI reference. */
function uriOf(file: string): string {
  const path = file.split('/').map(encodeURIComponent).join('/');
  return path.startsWith('/') ? `file://${path}` : path;
}
