// Two sets of policies over one cluster: what both know of pods and nodes is shared, what policies refer to is each side's.
import type { PolicyModel } from '../evaluate.ts';
import { isPolicyManifest, type OfflineModel, offlineModel } from './offline-model.ts';
import type { Manifest } from './read-manifests.ts';
import { selectorNamespaces, selectorPods } from './selector-pods.ts';

/** The two sides. */
export interface TwoModels {
  readonly before: OfflineModel;
  readonly after: OfflineModel;
  /** There was no pod: they were made up from selectors. */
  readonly madeUp: boolean;
}

/** Whose content may differ from one side to the other. */
const ofOneSide = ['Namespace', 'Service', 'Endpoints', 'EndpointSlice', 'CiliumCIDRGroup'];

/** Makes both models with the same pods and nodes. `cluster` is what is known beside both sets. */
export function twoModels(
  old: readonly Manifest[],
  now: readonly Manifest[],
  cluster: readonly Manifest[],
  options: { readonly node?: string | undefined } = {},
): TwoModels {
  const own = (each: Manifest): boolean => isPolicyManifest(each) || ofOneSide.includes(each.kind);
  const shared = latest([...cluster, ...old, ...now].filter((each) => !own(each)));
  const inCluster = cluster.filter(own);
  const sides = [old, now].map((side) => [...shared, ...latest([...inCluster, ...side.filter(own)])]);
  const first = sides.map((side) => offlineModel(side, options));
  const rows = first.flatMap(({ model }) => model.policies);
  const known = first.flatMap(({ model }) => model.namespaces.map((row) => row.name));
  const namespaces = [...new Set([...known, ...selectorNamespaces(rows)])].sort();
  const madeUp = first.every(({ pods }) => pods.length === 0);
  const again = (pods: OfflineModel['pods']) =>
    sides.map((side) => offlineModel(side, { ...options, namespaces, pods }));
  let models = again([]);
  if (madeUp)
    models = again(
      selectorPods(
        rows,
        models.flatMap(({ model }) => model.namespaces),
      ),
    );
  return { before: sorted(models[0]!), after: sorted(models[1]!), madeUp };
}

/** Namespaces in one order, so that equal ones are seen to be. */
function sorted(offline: OfflineModel): OfflineModel {
  const namespaces = [...offline.model.namespaces].sort((a, b) => (a.name < b.name ? -1 : 1));
  const model: PolicyModel = { ...offline.model, namespaces };
  return { ...offline, model };
}

/** Of objects with one name the last. */
function latest(manifests: readonly Manifest[]): Manifest[] {
  return [...new Map(manifests.map((each) => [`${each.kind}/${each.namespace}/${each.name}`, each])).values()];
}
