import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { essentialPolicy, essentialTraffic } from './essential-traffic.ts';

test('the table of docs/host-firewall.md has every row, with its reason', () => {
  const page = readFileSync(new URL('../../../docs/host-firewall.md', import.meta.url), 'utf8');
  const rows = page.split('\n').filter((line) => line.startsWith('| '));
  for (const { name, direction, peers, why } of essentialTraffic) {
    const found = rows.find((row) => row.startsWith(`| ${name} | ${direction} | ${peers.join(', ')} |`));
    assert.ok(found?.endsWith(`| ${why} |`), `${direction}: ${name}`);
  }
});

test('essentialPolicy() opens the ports of the control plane on its nodes only', () => {
  const portsOf = (nodeLabels: Record<string, string>) =>
    essentialPolicy({ nodeLabels, podCidrs: [] }).ingress.flatMap(({ ports }) =>
      (ports ?? []).flatMap((port) => (port.kind === 'range' ? port.first : [])),
    );
  assert.ok(portsOf({ 'node-role.kubernetes.io/control-plane': '' }).includes(6443));
  assert.ok(!portsOf({}).includes(6443));
});

test('essentialPolicy() isolates nobody, and opens health checks where there are some', () => {
  const { isolates, ingress } = essentialPolicy({ nodeLabels: {}, podCidrs: [], healthCheckPorts: [31_000] });
  assert.deepEqual(isolates, { ingress: false, egress: false });
  assert.ok(ingress.some(({ ports }) => ports?.some((port) => port.kind === 'range' && port.first === 31_000)));
});
