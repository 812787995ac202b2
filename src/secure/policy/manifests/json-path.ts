// JSON paths as problems of policies name them: `spec.ingress[0].ports[1].port`, `matchLabels["app.kubernetes.io/name"]`.

/** Names of fields and places in lists. */
export type PathStep = string | number;

const step = /\.?([A-Za-z0-9_$-]+)|\[(\d+)\]|\[("(?:[^"\\]|\\.)*")\]/y;

/** The steps of the path that a text begins with; what follows it is of no matter. */
export function pathSteps(text: string): PathStep[] {
  const steps: PathStep[] = [];
  step.lastIndex = 0;
  for (let found = step.exec(text); found !== null; found = step.exec(text)) {
    const [, name, place, quoted] = found;
    if (name !== undefined) steps.push(name);
    else steps.push(place === undefined ? unquoted(quoted!) : Number(place));
  }
  return steps;
}

function unquoted(text: string): string {
  try {
    return String(JSON.parse(text));
  } catch {
    return text.slice(1, -1);
  }
}
