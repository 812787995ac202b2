// The services that policies name: which pods they select, and the endpoints of those whose pods identities do not tell.
import { labelCounts } from '../core/identity.ts';
import type { PolicyServiceRow, ServiceSliceRow } from '../core/rows.ts';
import type { ReadTable, Table } from '../core/table.ts';
import type { KubeClient } from '../kube/client.ts';
import { type KubeObject, kubernetesResources } from '../kube/resource.ts';
import { type Watch, type WatchState, watch } from '../kube/watch.ts';

interface ServiceObject extends KubeObject {
  readonly spec?: { readonly selector?: Readonly<Record<string, string>> };
}

/** Keeps `table`. Those without a selector, and those that select by labels that do not count, have their endpoints. `onListed` is called with each change once all are known. */
export function followPolicyServices(options: {
  readonly client: KubeClient;
  readonly slices: ReadTable<ServiceSliceRow, 'service'>;
  readonly ignoredLabels: readonly string[] | undefined;
  readonly table: Table<PolicyServiceRow>;
  readonly onState: (state: WatchState) => void;
  readonly onListed: () => void;
}): { watch: Watch; stop: () => void } {
  const { slices, table } = options;
  const objects = new Map<string, ServiceObject>();
  let listed = false;
  const nameOf = ({ metadata }: KubeObject): string => `${metadata.namespace}/${metadata.name}`;
  const rowOf = (key: string, object: ServiceObject): PolicyServiceRow => {
    const { name, namespace = '', labels = {} } = object.metadata;
    const selector = Object.keys(object.spec?.selector ?? {}).length > 0 ? object.spec!.selector! : undefined;
    const row = { key, namespace, name, labels, ...(selector && { selector }) };
    if (selector && Object.keys(selector).every((each) => labelCounts(each, options.ignoredLabels))) {
      return { ...row, addresses: [] };
    }
    const addresses = slices.by('service', key).flatMap((slice) => slice.addresses);
    return { ...row, addresses: [...new Set(addresses)].sort() };
  };
  const write = (keys: Iterable<string>): void => {
    const complete = listed && slices.initialized;
    table.batch(() => {
      for (const key of keys) {
        const object = objects.get(key);
        if (object === undefined) table.delete(key);
        else table.upsert(rowOf(key, object));
      }
      if (complete) table.markInitialized();
    });
    if (complete) options.onListed();
  };
  const stop = slices.subscribe(({ changes, resync }) => {
    if (resync) write(objects.keys());
    else
      write(new Set(changes.flatMap(({ before, after }) => [before, after]).flatMap((slice) => slice?.service ?? [])));
  });
  const following = watch<ServiceObject>(
    options.client,
    kubernetesResources.services,
    {
      list(items) {
        const before = [...objects.keys()];
        objects.clear();
        for (const item of items) objects.set(nameOf(item), item);
        listed = true;
        write([...before, ...objects.keys()]);
      },
      upsert(item) {
        objects.set(nameOf(item), item);
        write([nameOf(item)]);
      },
      delete(item) {
        objects.delete(nameOf(item));
        write([nameOf(item)]);
      },
    },
    { onState: options.onState },
  );
  return { watch: following, stop };
}
