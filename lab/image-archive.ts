// Container images as archives in the OCI image layout, made from folders: what `ctr image import` takes.
import { createHash } from 'node:crypto';
import { createReadStream, mkdirSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { partialName } from './cache.ts';
import { run } from './command.ts';

/** What runs in an image when a pod does not say otherwise. */
export interface ImageConfig {
  readonly entrypoint?: readonly string[];
  readonly command?: readonly string[];
  readonly env?: readonly string[];
  readonly workingDir?: string;
}

/** A file of an archive, named by its content. */
interface Blob {
  readonly digest: string;
  readonly sizeBytes: number;
}

const mediaTypes = {
  index: 'application/vnd.oci.image.index.v1+json',
  manifest: 'application/vnd.oci.image.manifest.v1+json',
  config: 'application/vnd.oci.image.config.v1+json',
  layer: 'application/vnd.oci.image.layer.v1.tar',
} as const;

const defaultEnv = ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'];

/** The JSON of an image's configuration (OCI image spec 1.1, config.md). Always the same for the same input. */
function imageConfigJson(config: ImageConfig, layerDigests: readonly string[], architecture: string): string {
  return JSON.stringify({
    created: '1970-01-01T00:00:00Z',
    architecture,
    os: 'linux',
    config: {
      Env: config.env ?? defaultEnv,
      WorkingDir: config.workingDir ?? '/',
      ...(config.entrypoint === undefined ? {} : { Entrypoint: config.entrypoint }),
      ...(config.command === undefined ? {} : { Cmd: config.command }),
    },
    rootfs: { type: 'layers', diff_ids: layerDigests },
    history: layerDigests.map(() => ({ created_by: 'weir lab image build' })),
  });
}

/** The JSON of an image's manifest. */
function manifestJson(config: Blob, layers: readonly Blob[]): string {
  return JSON.stringify({
    schemaVersion: 2,
    mediaType: mediaTypes.manifest,
    config: { mediaType: mediaTypes.config, digest: config.digest, size: config.sizeBytes },
    layers: layers.map((layer) => ({ mediaType: mediaTypes.layer, digest: layer.digest, size: layer.sizeBytes })),
  });
}

/** The JSON of an archive's index: the image under each of its names, as containerd reads them. */
function indexJson(manifest: Blob, names: readonly string[]): string {
  return JSON.stringify({
    schemaVersion: 2,
    mediaType: mediaTypes.index,
    manifests: names.map((name) => ({
      mediaType: mediaTypes.manifest,
      digest: manifest.digest,
      size: manifest.sizeBytes,
      annotations: { 'io.containerd.image.name': name, 'org.opencontainers.image.ref.name': name.split(':').at(-1) },
    })),
  });
}

/** An image's full name, with the tag that is meant when none is given. */
export function fullImageName(name: string): string {
  const last = name.slice(name.lastIndexOf('/') + 1);
  return last.includes(':') ? name : `${name}:latest`;
}

function goArchitecture(): string {
  return process.arch === 'x64' ? 'amd64' : process.arch;
}

/** Makes an archive with one image whose layers are the folders, the lowest first. */
export async function buildImageArchive(
  archive: string,
  names: readonly string[],
  layerFolders: readonly string[],
  config: ImageConfig,
): Promise<void> {
  mkdirSync(dirname(archive), { recursive: true });
  const work = partialName(archive);
  try {
    const blobs = join(work, 'layout', 'blobs', 'sha256');
    mkdirSync(blobs, { recursive: true });
    const layers: Blob[] = [];
    for (const folder of layerFolders) {
      const file = join(work, 'layer.tar');
      // The same files give the same archive: sorted, without owners and times of this machine.
      const reproducible = ['--sort=name', '--mtime=@0', '--owner=0', '--group=0', '--numeric-owner', '--format=pax'];
      const noTimes = '--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime';
      await run(['tar', '-C', folder, ...reproducible, noTimes, '-cf', file, '.']);
      const digest = await fileDigest(file);
      layers.push({ digest, sizeBytes: statSync(file).size });
      renameSync(file, join(blobs, digest.slice('sha256:'.length)));
    }
    const store = (text: string): Blob => {
      const digest = `sha256:${createHash('sha256').update(text).digest('hex')}`;
      writeFileSync(join(blobs, digest.slice('sha256:'.length)), text);
      return { digest, sizeBytes: Buffer.byteLength(text) };
    };
    const digests = layers.map((layer) => layer.digest);
    const manifest = store(manifestJson(store(imageConfigJson(config, digests, goArchitecture())), layers));
    writeFileSync(join(work, 'layout', 'index.json'), indexJson(manifest, names));
    writeFileSync(join(work, 'layout', 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
    const whole = join(work, 'archive.tar');
    await run(['tar', '-C', join(work, 'layout'), '-cf', whole, 'oci-layout', 'index.json', 'blobs']);
    renameSync(whole, archive);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

async function fileDigest(file: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file), hash);
  return `sha256:${hash.digest('hex')}`;
}
