// Reads what ginkgo says about a run: its report at the end, and its output while it runs.

/** How one test ended. */
export interface TestResult {
  readonly name: string;
  readonly state: string;
  readonly seconds: number;
  /** Why it failed or was skipped. */
  readonly message?: string;
}

interface Report {
  readonly SpecReports: readonly {
    readonly ContainerHierarchyTexts: readonly string[] | null;
    readonly LeafNodeType: string;
    readonly LeafNodeText: string;
    readonly State: string;
    readonly RunTime: number;
    readonly Failure?: { readonly Message?: string };
  }[];
}

/** The results of the tests that were asked for, from ginkgo's JSON report. One that is missing has the state `missing`. */
export function readReport(json: string, asked: readonly string[]): TestResult[] {
  const found = new Map<string, TestResult>();
  for (const { SpecReports } of JSON.parse(json) as Report[])
    for (const spec of SpecReports) {
      if (spec.LeafNodeType !== 'It') continue;
      const name = [...(spec.ContainerHierarchyTexts ?? []), spec.LeafNodeText].join(' ');
      const message = spec.Failure?.Message;
      found.set(name, {
        name,
        state: spec.State,
        seconds: spec.RunTime / 1e9,
        ...(message === undefined ? {} : { message }),
      });
    }
  return asked.map((name) => found.get(name) ?? { name, state: 'missing', seconds: 0 });
}

/** A test that has just ended, as the output says it: `• [FAILED] [5.2 seconds]`, then its name and labels. */
export interface Ended {
  readonly name: string;
  readonly state: string;
  readonly seconds: number;
}

/** Takes ginkgo's verbose output line by line, and tells of tests that ended. */
export function followOutput(onEnd: (test: Ended) => void): (line: string) => void {
  let ended: { state: string; seconds: number } | undefined;
  return (line) => {
    const head = /^[•SP] (?:\[([A-Z ]+)\] )?\[([\d.]+) seconds\]$/.exec(line.trimEnd());
    if (head !== null) {
      ended = { state: head[1]?.toLowerCase() ?? 'passed', seconds: Number(head[2]) };
      return;
    }
    // Suites' own steps begin with [Synchronized...] and [Report...], tests with their group's name.
    if (ended !== undefined && line.startsWith('[sig-'))
      onEnd({ name: line.replace(/ \[[^\]]*\]$/, '').replace(' [It] ', ' '), ...ended });
    ended = undefined;
  };
}
