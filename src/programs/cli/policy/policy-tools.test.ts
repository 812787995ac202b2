// The offline commands as a user runs them, on the example that docs/policy-tools.md speaks of.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { readSuite } from '../../../secure/policy/suite/read-suite.ts';

const main = fileURLToPath(new URL('../main.ts', import.meta.url));
const root = fileURLToPath(new URL('../../../..', import.meta.url));
const example = 'examples/policy-ci';
const folder = mkdtempSync(join(tmpdir(), 'weir-policy-'));
after(() => rmSync(folder, { recursive: true }));

/** A copy of the example's policies with one text replaced. */
function changed(from: string, to: string): string {
  const copy = mkdtempSync(join(folder, 'copy-'));
  mkdirSync(copy, { recursive: true });
  const text = readFileSync(join(root, example, 'policies/shop.yaml'), 'utf8');
  assert.ok(text.includes(from));
  writeFileSync(join(copy, 'shop.yaml'), text.replace(from, to));
  return copy;
}

function policy(args: readonly string[], input = ''): { code: number | null; out: string; err: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, 'policy', ...args], {
    cwd: root,
    input,
    encoding: 'utf8',
  });
  return { code: status, out: stdout, err: stderr };
}

test('policy test runs the example, and explains a failure', () => {
  assert.deepEqual(policy(['test', `${example}/suite.yaml`]).code, 0);
  const input = `policies: [${example}/policies]\npods: [${example}/pods.yaml]\ntests:\n  - from shop/web to shop/db 5433/tcp: allowed\n`;
  const { code, out } = policy(['test', '-', '-o', 'tap'], input);
  assert.equal(code, 1);
  assert.match(
    out,
    /^TAP version 14\n1\.\.1\nnot ok 1 - shop\/web -> shop\/db 5433\/tcp: allowed\n# <stdin>:4\n# expected allowed, got denied\n/,
  );
  assert.match(out, /to allow it: add 5433\/TCP to the ports of NetworkPolicy shop\/db ingress\[0\]/);
  assert.equal(policy(['test', '-'], 'tests: [{form: a}]').code, 2);
});

test('policy validate, fmt --check and why know the example', () => {
  assert.deepEqual(policy(['validate', example, '--strict']), {
    code: 0,
    out: '4 policies in 3 files: 0 errors, 0 warnings\n',
    err: '',
  });
  assert.equal(policy(['fmt', example, '--check']).code, 0);
  const { out } = policy(['why', 'shop/web', 'shop/db', '-p', '5432', '-f', example]);
  assert.match(out, /^shop\/web -> shop\/db 5432\/TCP: allowed\n/);
  assert.equal(policy(['validate', changed('app: db}}', 'app: db}')]).code, 1);
  assert.equal(policy(['validate', '/nowhere']).code, 3);
});

test('policy diff says what changes, and convert what would be lost', () => {
  const now = changed('podSelector: {matchLabels: {app: web}}}]', 'podSelector: {matchLabels: {app: job}}}]');
  const { code, out } = policy(['diff', `${example}/policies`, now, '--pods', `${example}/pods.yaml`, '--exit-code']);
  assert.equal(code, 1);
  assert.match(
    out,
    /^now denied: shop\/web -> shop\/db 5432\/TCP \(was allowed by NetworkPolicy shop\/web egress\[0\], NetworkPolicy shop\/db ingress\[0\], now isolated by NetworkPolicy shop\/default-deny, NetworkPolicy shop\/db\)$/m,
  );
  assert.match(out, /^1 pair of ends may do less now, 0 pairs of ends more\.$/m);
  const same = policy(['diff', example, example, '--exit-code']);
  assert.deepEqual([same.code, same.out], [0, 'No connection changes.\n']);
  const converted = policy(['convert', '--to', 'CiliumNetworkPolicy', `${example}/policies`]);
  assert.equal(converted.code, 0);
  const again = policy(['diff', '-', `${example}/policies`, '--pods', `${example}/pods.yaml`], converted.out);
  assert.match(again.out, /^No connection changes\.$/m);
  const lossy = policy(['convert', '--to', 'ClusterNetworkPolicy', `${example}/policies`]);
  assert.deepEqual([lossy.code, lossy.out], [1, '']);
  assert.match(lossy.err, /a ClusterNetworkPolicy isolates nobody/);
});

test('readSuite() reads both forms, and says what it cannot read', () => {
  const { tests, problems } = readSuite(
    'tests:\n  - "from a/b to world 53/udp: denied"\n  - from a/b to svc c/d: allowed\n  - {from: a/b, to: host, port: icmp, expect: ingress denied}\n  - from x: y\n',
  );
  assert.deepEqual(
    tests.map(({ from, to, port, expect, line }) => [from, to, port, expect, line]),
    [
      ['a/b', 'world', '53/udp', 'denied', 2],
      ['a/b', 'svc c/d', '80/tcp', 'allowed', 3],
      ['a/b', 'host', 'icmp', 'ingress denied', 4],
    ],
  );
  assert.deepEqual(
    problems.map(({ line }) => line),
    [5],
  );
});
