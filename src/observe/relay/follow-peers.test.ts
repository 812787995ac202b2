// The nodes that an agent tells of, through a real server.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { create } from '@bufbuild/protobuf';
import { ChangeNotificationSchema, ChangeNotificationType, Peer } from '../../../proto/gen/peer/peer_pb.js';
import { rpcService } from '../rpc/rpc-service.ts';
import { serveRpc } from '../rpc/serve-rpc.ts';
import { followPeers } from './follow-peers.ts';
import { createPeerPool } from './peer-pool.ts';

const listedMs = 5;

test('an agent that has nothing to tell yet deletes no node; when it tells, who is not among them goes', async (t) => {
  const gate = new EventTarget();
  const asked = new EventTarget();
  const service = rpcService(Peer, {
    notify: {
      async *stream(_: unknown, { signal }: { signal: AbortSignal }) {
        const opened = once(gate, 'open');
        asked.dispatchEvent(new Event('asked'));
        await opened;
        yield create(ChangeNotificationSchema, {
          name: 'new',
          address: '127.0.0.1:1',
          type: ChangeNotificationType.PEER_ADDED,
        });
        await once(signal, 'abort');
      },
    },
  });
  const server = await serveRpc({ address: '127.0.0.1:0', services: [service] });
  t.after(() => server.close());
  const pool = createPeerPool({});
  t.after(() => pool.close());
  pool.set({ name: 'old', address: '127.0.0.1:1' });
  const heard = once(asked, 'asked');
  t.after(
    followPeers(
      () => ({ address: server.address }),
      pool,
      () => {},
      listedMs,
    ),
  );
  await heard;
  await pause(10 * listedMs);
  assert.deepEqual(
    pool.nodes().map(({ peer }) => peer.name),
    ['old'],
  );
  const gone = new Promise<void>((resolve) => {
    pool.subscribe(({ kind }) => kind === 'gone' && resolve());
  });
  gate.dispatchEvent(new Event('open'));
  await gone;
  assert.deepEqual(
    pool.nodes().map(({ peer }) => peer.name),
    ['new'],
  );
});
