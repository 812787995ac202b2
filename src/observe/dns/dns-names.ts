// Which names pods of this node asked for and which addresses they were given, so that what they connect to afterwards
// carries the name. And how long answers took.
import type { DnsMessage } from './parse-dns.ts';

/** What was learnt from messages. */
export interface DnsNames {
  /** A query of a pod; `key` says which socket asked whom. */
  asked(key: string, message: DnsMessage, atNs: number): void;
  /** An answer; the nanoseconds since its query, undefined when nobody asked: then nothing is to be learnt from it. */
  answered(key: string, message: DnsMessage, atNs: number): number | undefined;
  /** What a pod was given. */
  learn(endpointId: number, message: DnsMessage, nowMs: number): void;
  /** The names under which a pod knows an address. */
  names(endpointId: number, address: string, nowMs: number): readonly string[];
  forget(endpointId: number): void;
}

const maxPending = 16_384;
/** Addresses remembered for each pod; the ones that were asked for longest ago go. */
const maxAddresses = 2_048;
const maxNames = 8;
/** Programs go on with an address longer than they should. */
const leastMs = 3_600_000;
const none: readonly string[] = [];

interface Known {
  names: readonly string[];
  untilMs: number;
}

/** Makes an empty memory. */
export function createDnsNames(): DnsNames {
  const pending = new Map<string, number>();
  const pods = new Map<number, Map<string, Known>>();

  return {
    asked(key, message, atNs) {
      pending.set(`${key} ${message.id} ${message.query} ${message.queryType}`, atNs);
      if (pending.size > maxPending) pending.delete(pending.keys().next().value!);
    },
    answered(key, message, atNs) {
      const asked = `${key} ${message.id} ${message.query} ${message.queryType}`;
      const then = pending.get(asked);
      if (then === undefined) return undefined;
      pending.delete(asked);
      return Math.max(0, atNs - then);
    },
    learn(endpointId, message, nowMs) {
      if (endpointId === 0 || message.addresses.length === 0) return;
      let known = pods.get(endpointId);
      if (known === undefined) {
        known = new Map();
        pods.set(endpointId, known);
      }
      const name = message.query.replace(/\.$/, '');
      const untilMs = nowMs + Math.max(leastMs, message.ttl * 1000);
      for (const address of message.addresses) {
        const before = known.get(address);
        known.delete(address);
        const names =
          before === undefined || before.untilMs < nowMs
            ? [name]
            : before.names[0] === name
              ? before.names
              : [name, ...before.names.filter((each) => each !== name)].slice(0, maxNames);
        known.set(address, { names, untilMs });
      }
      while (known.size > maxAddresses) known.delete(known.keys().next().value!);
    },
    names(endpointId, address, nowMs) {
      const known = pods.get(endpointId)?.get(address);
      return known === undefined || known.untilMs < nowMs ? none : known.names;
    },
    forget(endpointId) {
      pods.delete(endpointId);
    },
  };
}
