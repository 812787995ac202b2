// Gives an image archive to the container runtimes of a lab that is up.
import { copyFileSync, existsSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { WeirError } from '../src/core/errors.ts';
import { nodeExec } from './node.ts';
import { type LabRecord, paths } from './state.ts';

/** Imports an image archive into the nodes of a running lab, or into those named; returns their names. */
export async function importImage(record: LabRecord, archive: string, nodes?: readonly string[]): Promise<string[]> {
  if (!existsSync(archive)) throw new WeirError('LAB_ARGUMENT_INVALID', `there is no file ${archive}`);
  const into = record.nodes.filter((node) => node.kubelet && (nodes === undefined || nodes.includes(node.name)));
  for (const node of into) {
    // By way of the node's own folder: wherever the archive is, the node may have something else mounted there.
    const name = `import-${process.pid}.tar`;
    const folder = paths.node(record.name, node.name);
    mkdirSync(folder, { recursive: true });
    copyFileSync(archive, join(folder, name));
    try {
      const inside = join('/run/lab/state/nodes', node.name, name);
      const programs =
        'PATH=$(for d in /run/lab/*/; do printf %s: "$d"; done)$PATH; exec ctr -n k8s.io image import --local "$0"';
      const done = await nodeExec(record.name, node.name, ['sh', '-c', programs, inside]);
      if (done.status !== 0) throw new WeirError('LAB_COMMAND_FAILED', `${node.name}: ${done.stderr.trim()}`);
    } finally {
      rmSync(join(folder, name), { force: true });
    }
  }
  return into.map((node) => node.name);
}
