import assert from 'node:assert/strict';
import { test } from 'node:test';
import { describe, parseFlowLines, summarize } from './demo-summary.ts';

const web = { namespace: 'shop', pod_name: 'web-1' };
const cart = { namespace: 'shop', pod_name: 'cart-1' };
const allowed = {
  flow: {
    verdict: 'FORWARDED',
    IP: { source: '10.0.0.1', destination: '10.0.0.2' },
    source: web,
    destination: cart,
    l4: { TCP: { destination_port: 8080 } },
    egress_allowed_by: [{ name: 'out', namespace: 'shop', labels: ['weir:rule=egress[1]'] }],
    extensions: { value: { source_process: { binary: '/usr/bin/curl', arguments: '-s http://cart' } } },
  },
};

test('parseFlowLines() leaves out what is no flow', () => {
  const text = `${JSON.stringify(allowed)}\n\nnot json\n{"lost_events":{}}\n`;
  assert.deepEqual(parseFlowLines(text), [allowed]);
});

test('summarize() joins what both ends of a connection say', () => {
  const atDestination = {
    flow: { ...allowed.flow, egress_allowed_by: [], ingress_allowed_by: [{ name: 'in', namespace: 'shop' }] },
  };
  const v6 = { flow: { ...allowed.flow, IP: { source: 'fd00::1', destination: 'fd00::2' } } };
  const [connection, ...others] = summarize([allowed, atDestination, v6]);
  assert.deepEqual(others, []);
  assert.deepEqual(connection, {
    from: 'shop/web-1',
    to: 'shop/cart-1',
    port: '8080/TCP',
    denied: false,
    reason: '',
    families: ['IPv4', 'IPv6'],
    flows: 3,
    egressPolicies: ['shop/out egress[1]'],
    ingressPolicies: ['shop/in'],
    processes: ['/usr/bin/curl -s http://cart'],
  });
  assert.match(describe(connection!), /^ {6}made by \/usr\/bin\/curl -s http:\/\/cart$/m);
  assert.match(describe(connection!), /allowed by shop\/out egress\[1\] and shop\/in$/m);
});

test('summarize() leaves out replies and what nodes begin', () => {
  const reply = { flow: { ...allowed.flow, is_reply: { value: true } } };
  const probe = { flow: { ...allowed.flow, source: { labels: ['reserved:host'] } } };
  assert.deepEqual(summarize([reply, probe]), []);
});

test('summarize() puts denied connections last and names what isolates the pod', () => {
  const denied = {
    flow: {
      verdict: 'DROPPED',
      drop_reason_desc: 'POLICY_DENIED',
      IP: { source: '10.0.0.1', destination: '198.51.100.1' },
      source: web,
      destination: { labels: ['reserved:world'] },
      l4: { TCP: { destination_port: 443 } },
      egress_denied_by: [{ name: 'default-deny', namespace: 'shop' }],
    },
  };
  const found = summarize([denied, allowed]);
  assert.deepEqual(
    found.map((each) => each.denied),
    [false, true],
  );
  assert.equal(found[1]?.to, 'world 198.51.100.1');
  assert.match(describe(found[1]!), /egress is closed by shop\/default-deny, and none of their rules allows it/);
});
