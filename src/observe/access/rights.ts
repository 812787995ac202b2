// What somebody may see, by namespace: grants of all kinds added up.

/** What a grant allows in a namespace: its flows, and with `processes` which programs made them. */
export type AccessVerb = 'flows' | 'processes';

/** What a grant leaves out of the flows that it allows. */
const redactions = ['arguments', 'labels', 'addresses-of-others', 'dns'] as const;
export type Redaction = (typeof redactions)[number];

/** One grant, as it holds in one namespace. */
export interface NamespaceGrant {
  readonly verbs: readonly AccessVerb[];
  readonly redactions: readonly Redaction[];
}

/** What may be seen of a namespace whose flows may be seen. */
export interface NamespaceRights {
  readonly processes: boolean;
  readonly redactions: ReadonlySet<Redaction>;
}

/** The namespaces whose flows may be seen. */
export type AccessRights = ReadonlyMap<string, NamespaceRights>;

/** Nothing may be seen. */
export const noRights: AccessRights = new Map();

/**
 * Adds up the grants in one namespace; undefined when none is for flows. More grants never show less: what one leaves out
 * another may show.
 */
export function addGrants(grants: readonly NamespaceGrant[]): NamespaceRights | undefined {
  const flows = grants.filter(({ verbs }) => verbs.includes('flows'));
  if (flows.length === 0) return undefined;
  const processes = grants.filter(({ verbs }) => verbs.includes('processes'));
  const leftOut = redactions.filter((redaction) => {
    const relevant = redaction === 'arguments' ? processes : flows;
    return relevant.every((grant) => grant.redactions.includes(redaction));
  });
  return { processes: processes.length > 0, redactions: new Set(leftOut) };
}

/** A text that is equal for rights that are. */
export function rightsKey(rights: AccessRights): string {
  return [...rights]
    .map(([namespace, each]) => `${namespace}:${each.processes}:${[...each.redactions].sort().join(',')}`)
    .sort()
    .join(';');
}
