import assert from 'node:assert/strict';
import { test } from 'node:test';
import { WeirError } from '../../core/errors.ts';
import { connectionQuery } from './api-routes.ts';
import { type ConnectionView, connectionMatches } from './conntrack-entries.ts';

const connection: ConnectionView = {
  source: '10.0.0.1',
  sourcePort: 4000,
  destination: 'fd00::2',
  destinationPort: 80,
  protocol: 6,
  state: 'open',
  verdict: 'POLICY_DENIED',
  sourceIdentity: 300,
  destinationIdentity: 2,
  packets: [1, 0],
  bytes: [60, 0],
  idleSeconds: 1,
  lifetimeSeconds: 60,
  audited: [],
  cookies: [0, 0],
};

test('connectionMatches() looks at either end, and all that is asked must hold', () => {
  const matches = (filter: object) => connectionMatches(connection, filter);
  assert.ok(matches({}));
  for (const filter of [
    { ip: '10.0.0.1' },
    { ip: 'fd00::2' },
    { port: 80 },
    { port: 4000 },
    { protocol: 6, state: 'open' },
  ])
    assert.ok(matches(filter), JSON.stringify(filter));
  for (const filter of [
    { ip: '10.0.0.2' },
    { port: 81 },
    { protocol: 17 },
    { state: 'closed' },
    { ip: '10.0.0.1', port: 1 },
  ])
    assert.ok(!matches(filter), JSON.stringify(filter));
});

test('connectionMatches() knows verdicts by name, and dropped for all that were not forwarded', () => {
  assert.ok(connectionMatches(connection, { verdict: 'dropped' }));
  assert.ok(connectionMatches(connection, { verdict: 'policy_denied' }));
  assert.ok(!connectionMatches(connection, { verdict: 'forwarded' }));
  assert.ok(!connectionMatches({ ...connection, verdict: 'forwarded' }, { verdict: 'dropped' }));
});

test('connectionQuery() reads a query and refuses what it cannot read', () => {
  const read = (text: string) => connectionQuery(new URLSearchParams(text));
  assert.deepEqual(read(''), {
    ip: undefined,
    port: undefined,
    protocol: undefined,
    state: undefined,
    verdict: undefined,
    limit: 1000,
  });
  assert.deepEqual([read('ip=FD00:0::2').ip, read('port=0&limit=5').limit], ['fd00::2', 5]);
  for (const bad of [
    'ip=10.0.0.0/8',
    'ip=x',
    'port=-1',
    'port=65536',
    'port=',
    'protocol=tcp',
    'limit=1e9',
    'limit=NaN',
  ])
    assert.throws(
      () => read(bad),
      (error: unknown) => error instanceof WeirError && error.code === 'CONFIG_INVALID',
      bad,
    );
});
