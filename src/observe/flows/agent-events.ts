// What the agent did, for GetAgentEvents: the last of it is kept, and those who follow are told as it happens.
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { type AgentEvent, AgentEventSchema, AgentEventType } from '../../../proto/gen/flow/flow_pb.js';
import type { EndpointRow, IdentityRow, PolicyObjectRow } from '../../core/rows.ts';
import type { ReadTable } from '../../core/table.ts';

/** An event and its time. */
export interface TimedAgentEvent {
  readonly timeMs: number;
  readonly event: AgentEvent;
}

/** The last events. */
export interface AgentEvents {
  /** The number of the oldest event there is, and the one the next will have. */
  readonly oldest: number;
  readonly next: number;
  get(seq: number): TimedAgentEvent;
  subscribe(listener: () => void): () => void;
  close(): void;
}

/** Follows the tables from now on; the first event says that the agent started. */
export function createAgentEvents(options: {
  readonly endpoints: ReadTable<EndpointRow>;
  readonly identities: ReadTable<IdentityRow>;
  readonly policies: ReadTable<PolicyObjectRow>;
  readonly startedAtMs: number;
  readonly capacity?: number;
}): AgentEvents {
  const { endpoints, identities, policies, startedAtMs, capacity = 1024 } = options;
  const kept: TimedAgentEvent[] = [];
  const listeners = new Set<() => void>();
  let next = 0;

  function add(
    type: AgentEventType,
    notification: NonNullable<MessageInitShape<typeof AgentEventSchema>['notification']>,
    timeMs = Date.now(),
  ): void {
    kept[next++ % capacity] = { timeMs, event: create(AgentEventSchema, { type, notification }) };
    for (const listener of [...listeners]) listener();
  }

  add(AgentEventType.AGENT_STARTED, { case: 'agentStart', value: { time: timestampFromMs(startedAtMs) } }, startedAtMs);
  const stops = [
    endpoints.subscribe(({ changes }) => {
      for (const { before, after } of changes) {
        if (before !== undefined && after !== undefined) continue;
        const row = (after ?? before)!;
        add(after === undefined ? AgentEventType.ENDPOINT_DELETED : AgentEventType.ENDPOINT_CREATED, {
          case: 'endpointUpdate',
          value: {
            id: BigInt(row.id),
            podName: row.pod,
            namespace: row.namespace,
            labels: [...(identities.get(row.identity)?.labels ?? [])],
          },
        });
      }
    }),
    policies.subscribe(({ changes, revision }) => {
      for (const { before, after } of changes) {
        const row = (after ?? before)!;
        add(after === undefined ? AgentEventType.POLICY_DELETED : AgentEventType.POLICY_UPDATED, {
          case: 'policyUpdate',
          value: {
            labels: [
              `k8s:io.cilium.k8s.policy.derived-from=${row.kind}`,
              `k8s:io.cilium.k8s.policy.name=${row.name}`,
              ...(row.namespace === '' ? [] : [`k8s:io.cilium.k8s.policy.namespace=${row.namespace}`]),
            ],
            revision: BigInt(revision),
            ruleCount: BigInt(row.specs.reduce((sum, spec) => sum + spec.ingress.length + spec.egress.length, 0)),
          },
        });
      }
    }),
  ];
  return {
    get oldest() {
      return Math.max(0, next - capacity);
    },
    get next() {
      return next;
    },
    get: (seq) => kept[seq % capacity]!,
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    close() {
      for (const stop of stops) stop();
    },
  };
}
