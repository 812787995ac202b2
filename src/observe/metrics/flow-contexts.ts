// What the ends of flows are called in metrics.
import { reservedIdentityRows } from '../../core/identity.ts';
import { endLabels } from '../flows/flow-message.ts';
import type { FlowEnd } from '../flows/flow-row.ts';
import type { ContextName, LabelContext } from './metric-options.ts';

const reserved = new Set(reservedIdentityRows().map((row) => row.id));

/** The name of an end in a context; empty where the context says nothing of it. */
export function contextText(end: FlowEnd, names: readonly string[], context: ContextName): string {
  switch (context) {
    case 'app':
      return appOf(end);
    case 'dns':
      return names.join(',');
    case 'identity':
      return endLabels(end).join(',');
    case 'ip':
      return end.address;
    case 'namespace':
      return end.namespace;
    case 'pod':
      return end.pod === '' ? '' : `${end.namespace}/${end.pod}`;
    case 'pod-name':
      return end.pod;
    case 'reserved-identity':
      return reserved.has(end.identity) ? endLabels(end).join(',') : '';
    case 'workload':
      return end.workloadName === '' ? '' : `${end.namespace}/${end.workloadName}`;
    case 'workload-name':
      return end.workloadName;
  }
}

/** The value of a label of its own. */
export function labelText(label: LabelContext, source: FlowEnd, destination: FlowEnd, direction: number): string {
  if (label === 'traffic_direction') return direction === 1 ? 'ingress' : direction === 2 ? 'egress' : 'unknown';
  const end = label.startsWith('source_') ? source : destination;
  switch (label.slice(label.indexOf('_') + 1)) {
    case 'ip':
      return end.address;
    case 'pod':
      return end.pod;
    case 'namespace':
      return end.namespace;
    case 'workload':
      return end.workloadName;
    case 'workload_kind':
      return end.workloadKind;
    default:
      return appOf(end);
  }
}

const appLabels = ['k8s:app.kubernetes.io/name=', 'k8s:k8s-app=', 'k8s:app='];

function appOf(end: FlowEnd): string {
  for (const prefix of appLabels) {
    const label = end.labels.find((each) => each.startsWith(prefix));
    if (label !== undefined) return label.slice(prefix.length);
  }
  return '';
}
