import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Ended, followOutput, readReport } from './report.ts';

test('readReport() gives the state of each test that was asked for, and says which is missing', () => {
  const spec = (leaf: string, state: string, more = {}) => ({
    ...{ ContainerHierarchyTexts: ['[sig-network] Services'], LeafNodeType: 'It', LeafNodeText: leaf },
    ...{ State: state, RunTime: 2e9, ...more },
  });
  const json = JSON.stringify([
    { SpecReports: [spec('works', 'passed'), spec('fails', 'failed', { Failure: { Message: 'why' } })] },
  ]);
  const asked = ['works', 'fails', 'is not there'].map((leaf) => `[sig-network] Services ${leaf}`);
  assert.deepEqual(readReport(json, asked), [
    { name: asked[0], state: 'passed', seconds: 2 },
    { name: asked[1], state: 'failed', seconds: 2, message: 'why' },
    { name: asked[2], state: 'missing', seconds: 0 },
  ]);
});

test('followOutput() tells of tests that ended, and not of the suite’s own steps', () => {
  const ended: Ended[] = [];
  const follow = followOutput((each) => ended.push(each));
  const lines = [
    '• [12.224 seconds]',
    '[sig-network] Services should serve [Conformance] [sig-network, Conformance]',
    '• [FAILED] [1.5 seconds]',
    '[sig-network] Services should fail [It] [sig-network]',
    'S [SKIPPED] [0.050 seconds]',
    '[sig-network] DNS should be asked [sig-network]',
    '[SynchronizedAfterSuite] PASSED [0.278 seconds]',
    '[sig-network] this line follows nothing',
  ];
  for (const line of lines) follow(line);
  assert.deepEqual(ended, [
    { name: '[sig-network] Services should serve [Conformance]', state: 'passed', seconds: 12.224 },
    { name: '[sig-network] Services should fail [It]', state: 'failed', seconds: 1.5 },
    { name: '[sig-network] DNS should be asked', state: 'skipped', seconds: 0.05 },
  ]);
});
