import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { stringify } from 'yaml';
import { ExportConfigError, parseExportConfig } from './export-config.ts';

const context = { nodeName: 'node1', version: 'weir v0', run: '0123456789abcdef' };
const parse = (text: string) => parseExportConfig(text, 'export.yaml', context);
const mistake = (text: string) => {
  try {
    parse(text);
  } catch (error) {
    assert.ok(error instanceof ExportConfigError);
    return error.message;
  }
  throw new Error('no mistake was found');
};
const file = (more: string) => `exporters: [{name: a, type: file, path: /f${more}}]`;

test('what is not said has a default', () => {
  const [config] = parse('exporters: [{name: a, type: stdout}]');
  assert.deepEqual(config!.batch, { events: 1_000, kilobytes: 1_024, seconds: 1 });
  assert.deepEqual([config!.queue.megabytes, config!.flows, config!.processes], [256, true, false]);
});

test('a mistake is told with its place and what to do', () => {
  assert.match(mistake('exporters: [{name: a, type: stdout'), /^export.yaml:\d+:\d+: /);
  assert.match(mistake(file(', batch: {events: 0}')), /exporters\[0\]\.batch\.events: /);
  assert.match(mistake(file(', colour: red')), /exporters\[0\]: .*colour/);
  assert.match(mistake(file(', include: [{dns_query: ["("]}]')), /exporters\[0\]\.include\[0\]: dns_query: /);
  assert.match(mistake(file(', include: [{verdict: [DROPED]}]')), /include\[0\]: .*DROPED/);
  assert.match(mistake(file(', fields: [source.pod]')), /fields: flows have no field "source.pod"/);
  assert.match(mistake(file(', format: ecs, fields: [source]')), /only for format flow/);
  assert.match(mistake(file(', queue: {megabytes: 1}')), /queue.megabytes: must be at least four times/);
  assert.match(
    mistake('exporters: [{name: a, type: stdout}, {name: a, type: stdout}]'),
    /exporters\[1\]\.name: another/,
  );
  assert.match(
    mistake('exporters: [{name: a, type: syslog, address: "tls://a", tls: {serverName: 10.0.0.1}}]'),
    /tls\.serverName: give a name, not an address/,
  );
  assert.match(mistake('exporters: [{name: ../a, type: stdout}]'), /name: give lower-case/);
  assert.match(mistake('exporters: [{name: a, type: splunk, url: "ftp://x"}]'), /url: give an address/);
});

test('the examples can be used', () => {
  const files = globSync(new URL('../../../examples/export/*.yaml', import.meta.url).pathname);
  assert.ok(files.length >= 7);
  for (const path of files) parseExportConfig(readFileSync(path, 'utf8'), path, context);
});

test('no text and no value does anything but be used or be refused', () => {
  const value = fc.oneof(
    fc.jsonValue(),
    fc.record({
      exporters: fc.array(
        fc.dictionary(
          fc.constantFrom('name', 'type', 'path', 'include', 'batch', 'url', 'address', 'fields', 'index'),
          fc.oneof(fc.jsonValue(), fc.constantFrom('file', 'syslog', 'tls://x', '/f', 'a')),
        ),
      ),
    }),
  );
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        value.map((each) => stringify(each)),
      ),
      (text) => {
        try {
          parse(text);
        } catch (error) {
          assert.ok(error instanceof ExportConfigError, String(error));
        }
      },
    ),
    { numRuns: 400 },
  );
});
