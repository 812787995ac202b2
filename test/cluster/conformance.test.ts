// A handful of Kubernetes' own tests, so that a run of all tests notices what `make conformance` would find. They are built
// when this first runs.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { attempt } from '../../lab/lab.ts';
import { labName, sharedLab } from './shared-lab.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const handful = [
  'DNS should provide DNS for the cluster',
  'EndpointSlice should support a Service with multiple ports',
  'Networking Granular Checks: Pods should function for node-pod communication: udp',
  'Services should be able to create a functioning NodePort service',
  'Services should be able to switch session affinity for service with type clusterIP',
  'Services should serve multiport endpoints from pods',
];

describe('Kubernetes’ own tests', { skip }, () => {
  test('a handful of conformance tests pass', async () => {
    await sharedLab();
    const run = fileURLToPath(new URL('../conformance/run.ts', import.meta.url));
    const options = ['--lab', labName, '--group', 'conformance', '--only', handful.join('|')];
    const { status, stdout, stderr } = await attempt([process.execPath, run, ...options]);
    assert.equal(status, 0, `${stderr}\n${stdout}`);
    assert.match(stdout, new RegExp(`^conformance: ${handful.length} of ${handful.length} passed`, 'm'));
  });
});
