import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { run } from './command.ts';
import { buildImageArchive, fullImageName } from './image-archive.ts';

const folder = mkdtempSync(join(tmpdir(), 'weir-archive-'));
after(() => rmSync(folder, { recursive: true }));

const digestOf = (data: Buffer) => `sha256:${createHash('sha256').update(data).digest('hex')}`;

test('buildImageArchive() makes a layout whose parts name each other by content', async () => {
  const root = join(folder, 'root');
  mkdirSync(join(root, 'bin'), { recursive: true });
  writeFileSync(join(root, 'bin/hello'), '#!/bin/sh\n', { mode: 0o755 });
  const archive = join(folder, 'image.tar');
  await buildImageArchive(archive, ['weir.local/hello:dev'], [root], { entrypoint: ['/bin/hello'] });
  const layout = join(folder, 'layout');
  mkdirSync(layout);
  await run(['tar', '-C', layout, '-xf', archive]);
  const read = (digest: string) => readFileSync(join(layout, 'blobs/sha256', digest.replace('sha256:', '')));

  assert.deepEqual(JSON.parse(readFileSync(join(layout, 'oci-layout'), 'utf8')), { imageLayoutVersion: '1.0.0' });
  const [entry] = JSON.parse(readFileSync(join(layout, 'index.json'), 'utf8')).manifests;
  assert.equal(entry.annotations['io.containerd.image.name'], 'weir.local/hello:dev');
  assert.equal(digestOf(read(entry.digest)), entry.digest);
  const manifest = JSON.parse(read(entry.digest).toString());
  const layer = read(manifest.layers[0].digest);
  assert.equal(digestOf(layer), manifest.layers[0].digest);
  assert.equal(layer.length, manifest.layers[0].size);
  const config = JSON.parse(read(manifest.config.digest).toString());
  assert.deepEqual(config.config.Entrypoint, ['/bin/hello']);
  assert.deepEqual(config.rootfs.diff_ids, [manifest.layers[0].digest]);
});

test('buildImageArchive() gives the same bytes for the same files', async () => {
  const [one, two] = [join(folder, 'one.tar'), join(folder, 'two.tar')];
  for (const archive of [one, two]) {
    const root = mkdtempSync(join(folder, 'same-'));
    writeFileSync(join(root, 'file'), 'content');
    await buildImageArchive(archive, ['a:b'], [root], {});
  }
  const config = async (archive: string) => run(['tar', '-xOf', archive, 'index.json']);
  assert.equal(await config(one), await config(two));
});

test('fullImageName() adds the tag that is meant', () => {
  assert.equal(fullImageName('weir.local/app'), 'weir.local/app:latest');
  assert.equal(fullImageName('localhost:5000/app'), 'localhost:5000/app:latest');
  assert.equal(fullImageName('weir.local/app:dev'), 'weir.local/app:dev');
});
