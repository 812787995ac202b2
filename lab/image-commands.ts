// `weir lab image build|list|import`: container images without a registry.
import { statSync } from 'node:fs';
import { type Command, Option } from 'commander';
import { WeirError } from '../src/core/errors.ts';
import { importImage } from './image-import.ts';
import { buildOwnImage, listImages } from './images.ts';
import { printAs } from './output.ts';
import { terminalProgress } from './progress.ts';
import { labNames, readRecord, requireLab } from './state.ts';

/** Adds `image build|list|import`. */
export function addImageCommands(program: Command, nameOption: () => Option): void {
  const image = program
    .command('image')
    .description('container images made on this machine; none is ever pulled')
    .addHelpText(
      'after',
      '\nExamples:\n  weir lab image build weir.local/app:dev ./app --cmd /app/run\n  weir lab image import app.tar   # what docker save wrote\n',
    );
  const words = (text: string, before: string[] = []) => [...before, text];

  image
    .command('build')
    .description('make an image from a folder, keep it for new labs, and import it into those that are up')
    .argument('<name>', 'such as weir.local/app:dev')
    .argument('<folder>', 'its files are laid over the base')
    .addOption(new Option('--base <base>', 'what is below').choices(['toolbox', 'none']).default('toolbox'))
    .option('--entrypoint <word>', 'a word of the entry point; repeat it for each', words)
    .option('--cmd <word>', 'a word of the command; repeat it for each', words)
    .addHelpText(
      'after',
      '\nExample:\n  weir lab image build weir.local/app:dev ./app --entrypoint python3 --entrypoint /main.py',
    )
    .action(
      async (
        name: string,
        folder: string,
        options: { base: 'toolbox' | 'none'; entrypoint?: string[]; cmd?: string[] },
      ) => {
        if (!statSync(folder, { throwIfNoEntry: false })?.isDirectory()) {
          throw new WeirError('LAB_ARGUMENT_INVALID', `"${folder}" is not a folder`);
        }
        const progress = terminalProgress();
        const config = {
          ...(options.entrypoint === undefined ? {} : { entrypoint: options.entrypoint }),
          ...(options.cmd === undefined ? {} : { command: options.cmd }),
        };
        const archive = await progress.phase(`made image ${name}`, () =>
          buildOwnImage(name, folder, { base: options.base, config }, progress),
        );
        for (const lab of labNames()) {
          const record = readRecord(lab);
          if (record?.phase !== 'up') continue;
          await progress.phase(`imported into lab "${lab}"`, () => importImage(record, archive));
        }
        process.stdout.write(`${archive}\n`);
      },
    );

  image
    .command('list')
    .description('the images that labs have')
    .addOption(new Option('-o, --output <format>').choices(['table', 'json', 'yaml']).default('table'))
    .action((options: { output: string }) => {
      process.stdout.write(
        printAs(options.output, listImages(), (images) => [
          ['NAME', 'MIB', 'ARCHIVE'],
          ...images.map((each) => [each.name, (each.sizeBytes / 2 ** 20).toFixed(1), each.archive]),
        ]),
      );
    });

  image
    .command('import')
    .description('import an image archive (docker save, OCI layout) into the nodes of a lab')
    .addOption(nameOption())
    .argument('<archive...>')
    .option('--node <node>', 'only into this node; may be repeated', words)
    .action(async (archives: string[], options: { name: string; node?: string[] }) => {
      const record = requireLab(options.name);
      const progress = terminalProgress();
      for (const archive of archives) {
        await progress.phase(`imported ${archive}`, () => importImage(record, archive, options.node));
      }
    });
}
