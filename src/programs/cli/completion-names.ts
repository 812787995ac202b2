// Names that only agents know, for completion: whoever presses a key waits, so what does not answer at once is left out,
// and nothing is ever said of it.
import type { EndpointView } from '../agent/api-routes.ts';
import { askAgent, resolveTargets, type TargetOptions } from './targets.ts';

/** What is asked for. */
export type NameKind = 'namespaces' | 'pods' | 'nodes';

const patienceMs = 700;

/** The names, sorted; none when nobody answers. */
export async function completionNames(kind: NameKind, options: TargetOptions, waitMs = patienceMs): Promise<string[]> {
  try {
    const { targets } = resolveTargets(options);
    const found = new Set<string>();
    if (kind === 'nodes') for (const { node } of targets) if (node !== undefined) found.add(node);
    const asked = targets.map(async (target) => {
      if (kind === 'nodes') {
        for (const { name } of (await askAgent<{ name: string }[]>(target, '/v1/nodes')) ?? []) found.add(name);
        return;
      }
      for (const { namespace, pod } of (await askAgent<EndpointView[]>(target, '/v1/endpoints')) ?? [])
        found.add(kind === 'pods' ? `${namespace}/${pod}` : namespace);
    });
    const timer = new Promise((resolve) => setTimeout(resolve, waitMs).unref());
    await Promise.race([Promise.allSettled(asked), timer]);
    // A shell would take apart, or run, what is no name of Kubernetes.
    return [...found].filter((name) => /^[a-z0-9.-]+(\/[a-z0-9.-]+)?$/.test(name)).sort();
  } catch {
    return [];
  }
}
