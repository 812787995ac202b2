// Kafka: every in-sync replica has an event before it counts as sent, and the broker itself drops what a retry repeats.
import { isIP } from 'node:net';
import { connectionsConnectsChannel, Producer, stringSerializers } from '@platformatic/kafka';
import { explainTls } from './explain-tls.ts';
import type { ConfigOf } from './export-config.ts';
import { readSecret, tlsOptions } from './http-post.ts';
import { allArrived, type Sink } from './sink.ts';

const allReplicas = -1;
/** Between the client's own tries. */
const retryDelayMs = 250;

type Client = Producer<string, string, string, string>;

/** Makes a client. */
export function createKafkaSink(config: ConfigOf<'kafka'>): Sink {
  let producer: Client | undefined;
  /** What the client has just met: it tries again, and would not say. */
  let trouble: string | undefined;
  let onTrouble = (_operation: string, _error: Error) => {};

  function open(): Client {
    const { auth, tls } = config;
    return new Producer({
      clientId: 'weir',
      bootstrapBrokers: config.brokers,
      serializers: stringSerializers,
      retryDelay(client, operation, _attempt, _retries, error) {
        // One that was given up may still have something to say.
        if (client === producer) {
          trouble = causesOf(error);
          onTrouble(operation, error);
        }
        return retryDelayMs;
      },
      timeout: config.timeoutSeconds * 1000,
      connectTimeout: Math.min(10, config.timeoutSeconds) * 1000,
      // Tries without end within its time: only the same client's numbers tell brokers what they have already.
      idempotent: true,
      // Where brokers do not allow it the topic must be there.
      autocreateTopics: true,
      ...(tls && { tls: withBrokerName(tlsOptions(tls)) }),
      ...(auth?.user !== undefined &&
        auth.passwordFile !== undefined && {
          sasl: { mechanism: config.sasl, username: auth.user, password: readSecret(auth.passwordFile) },
        }),
    });
  }

  async function drop(used: Client): Promise<void> {
    if (producer === used) producer = undefined;
    await used.close(true).catch(() => {});
  }

  return {
    async send(batch, signal) {
      producer ??= open();
      const used = producer;
      trouble = undefined;
      // Before that of who waits: it could only say that there was no answer.
      const deadline = AbortSignal.any([signal, AbortSignal.timeout(config.timeoutSeconds * 900)]);
      const { promise: failed, reject } = Promise.withResolvers<never>();
      // Also when nobody waits for it any more.
      failed.catch(() => {});
      const onDeadline = () => reject(new Error(trouble ?? 'no answer'));
      deadline.addEventListener('abort', onDeadline, { once: true });
      // Without a number it has sent nothing that another client could repeat. What a broker answers passes: it starts.
      onTrouble = (operation, error) => {
        const answered = (error as { code?: unknown }).code === 'PLT_KFK_RESPONSE';
        if (operation === 'initProducerId' && !answered) reject(new Error(trouble));
      };
      try {
        await Promise.race([
          failed,
          used.send({
            acks: allReplicas,
            compression: config.compression,
            messages: batch.map(({ id, key, kind, timeMs, body }) => ({
              topic: config.topic,
              ...(key !== '' && { key }),
              value: body,
              timestamp: BigInt(Math.floor(timeMs)),
              headers: { 'weir-id': id, 'weir-kind': kind },
            })),
          }),
        ]);
        return allArrived;
      } catch (error) {
        // A client that has failed once may hold connections and numbers that no broker knows any more.
        void drop(used);
        throw new Error(causesOf(error));
      } finally {
        deadline.removeEventListener('abort', onDeadline);
      }
    },
    async close() {
      await producer?.close(true).catch(() => {});
    },
  };
}

/** The broker that a client of this process is about to connect to. */
let connecting = '';
connectionsConnectsChannel.start.subscribe((event) => {
  connecting = String((event as { host?: unknown }).host ?? '');
});

/**
 * Gateways tell brokers apart by the name in the handshake. The client can send the name of each, but for an address it
 * throws where nobody catches: RFC 6066 has only names there. It reads these options as it connects.
 */
function withBrokerName(options: ReturnType<typeof tlsOptions>): object {
  if ('servername' in options) return options;
  return {
    ...options,
    get servername() {
      return isIP(connecting) === 0 ? connecting : undefined;
    },
  };
}

/** The innermost reasons: what the client says itself is only that it failed. */
function causesOf(error: unknown): string {
  const { cause, errors } = error as Error & { errors?: unknown[] };
  const message = explainTls(error as Error);
  const inner = [...(errors ?? []), ...(cause === undefined ? [] : [cause])].map(causesOf);
  return [message, ...new Set(inner)].join(': ').slice(0, 300);
}
