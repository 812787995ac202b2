// Kafka: every in-sync replica has an event before it counts as sent, and the broker itself drops what a retry repeats.
import { Producer, stringSerializers } from '@platformatic/kafka';
import type { ConfigOf } from './export-config.ts';
import { readSecret, tlsOptions } from './http-post.ts';
import { allArrived, type Sink } from './sink.ts';

const allReplicas = -1;

/** Makes a client. */
export function createKafkaSink(config: ConfigOf<'kafka'>): Sink {
  let producer: Producer<string, string, string, string> | undefined;

  function open(): Producer<string, string, string, string> {
    const { auth, tls } = config;
    return new Producer({
      clientId: 'weir',
      bootstrapBrokers: config.brokers,
      serializers: stringSerializers,
      retries: 0,
      timeout: config.timeoutSeconds * 1000,
      connectTimeout: Math.min(10, config.timeoutSeconds) * 1000,
      idempotent: true,
      // Where brokers do not allow it the topic must be there.
      autocreateTopics: true,
      ...(tls && { tls: tlsOptions(tls), ...(tls.serverName && { tlsServerName: tls.serverName }) }),
      ...(auth?.user !== undefined &&
        auth.passwordFile !== undefined && {
          sasl: { mechanism: config.sasl, username: auth.user, password: readSecret(auth.passwordFile) },
        }),
    });
  }

  async function drop(used: Producer<string, string, string, string>): Promise<void> {
    if (producer === used) producer = undefined;
    await used.close(true).catch(() => {});
  }

  return {
    async send(batch, signal) {
      producer ??= open();
      const used = producer;
      // The client has deadlines of its own, but not for everything.
      const onAbort = () => void drop(used);
      signal.addEventListener('abort', onAbort, { once: true });
      try {
        await used.send({
          acks: allReplicas,
          compression: config.compression,
          messages: batch.map(({ id, key, kind, timeMs, body }) => ({
            topic: config.topic,
            ...(key !== '' && { key }),
            value: body,
            timestamp: BigInt(Math.floor(timeMs)),
            headers: { 'weir-id': id, 'weir-kind': kind },
          })),
        });
        return allArrived;
      } catch (error) {
        // A client that has failed once may hold connections and numbers that no broker knows any more.
        await drop(used);
        throw new Error(causesOf(error));
      } finally {
        signal.removeEventListener('abort', onAbort);
      }
    },
    async close() {
      await producer?.close(true).catch(() => {});
    },
  };
}

/** The innermost reasons: what the client says itself is only that it failed. */
function causesOf(error: unknown): string {
  const { message, cause, errors } = error as Error & { errors?: unknown[] };
  const inner = [...(errors ?? []), ...(cause === undefined ? [] : [cause])].map(causesOf);
  return [message, ...new Set(inner)].join(': ').slice(0, 300);
}
