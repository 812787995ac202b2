// What the agent follows in the API for services, as tables: Services, their slices, and its own Node object.
import {
  type EndpointSliceObject,
  parseService,
  parseServiceSlice,
  type ServiceObject,
} from '../../connect/services/parse-service.ts';
import type { ServiceRow, ServiceSliceRow } from '../../core/rows.ts';
import { createTable, type ReadTable } from '../../core/table.ts';
import type { KubeClient } from '../../kube/client.ts';
import { type KubeObject, kubernetesResources } from '../../kube/resource.ts';
import { type WatchState, watchIntoTable } from '../../kube/watch.ts';

/** Tables that follow the API, and how the following goes. */
export interface ServiceSources {
  readonly services: ReadTable<ServiceRow, 'clusterIp' | 'health-check'>;
  readonly slices: ReadTable<ServiceSliceRow, 'service'>;
  readonly ownNode: ReadTable<{ name: string; zone?: string }>;
  watches(): WatchState[];
  stop(): void;
}

const zoneLabel = 'topology.kubernetes.io/zone';

/** Starts following. */
export function followServices(client: KubeClient, node: string, onState: (state: WatchState) => void): ServiceSources {
  const services = createTable<ServiceRow, 'clusterIp' | 'health-check'>({
    name: 'services',
    key: (row) => row.key,
    indexes: {
      clusterIp: (row) => row.clusterIps,
      'health-check': (row) => (row.externalLocal && row.healthCheckNodePort ? 'yes' : undefined),
    },
  });
  const slices = createTable<ServiceSliceRow, 'service'>({
    name: 'service-slices',
    key: (row) => row.key,
    indexes: { service: (row) => row.service },
  });
  const ownNode = createTable<{ name: string; zone?: string }>({ name: 'own-node', key: (row) => row.name });
  const watches = [
    watchIntoTable<KubeObject, ServiceRow>(
      client,
      kubernetesResources.services,
      services,
      (object) => parseService(object as ServiceObject),
      { onState },
    ),
    watchIntoTable<KubeObject, ServiceSliceRow>(
      client,
      kubernetesResources.endpointSlices,
      slices,
      (object) => parseServiceSlice(object as EndpointSliceObject),
      { onState },
    ),
    watchIntoTable<KubeObject, { name: string; zone?: string }>(
      client,
      kubernetesResources.nodes,
      ownNode,
      (object) => ({ name: object.metadata.name, zone: object.metadata.labels?.[zoneLabel] }),
      { fieldSelector: `metadata.name=${node}`, onState },
    ),
  ];

  return {
    services,
    slices,
    ownNode,
    watches: () => watches.map((each) => each.state()),
    stop() {
      for (const each of watches) each.stop();
    },
  };
}
