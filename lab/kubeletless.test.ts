import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pluginConfiguration } from './kubeletless.ts';

test('pluginConfiguration() gives a plugin the list’s name and version, and what the one before it answered', () => {
  const plugin = { type: 'weir-cni', log: 'x' };
  const list = { cniVersion: '1.1.0', name: 'weir', plugins: [plugin] };
  assert.deepEqual(pluginConfiguration(list, plugin, undefined), {
    type: 'weir-cni',
    log: 'x',
    cniVersion: '1.1.0',
    name: 'weir',
  });
  assert.deepEqual(pluginConfiguration(list, plugin, { ips: [] }), {
    type: 'weir-cni',
    log: 'x',
    cniVersion: '1.1.0',
    name: 'weir',
    prevResult: { ips: [] },
  });
});
