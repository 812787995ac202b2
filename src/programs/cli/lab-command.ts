// `weir lab` is a program of its own, which bin/weir starts; here it only has its name in --help and completion.
import { Command } from 'commander';
import { WeirError } from '../../core/errors.ts';

/** The entry. */
export function labCommand(): Command {
  return new Command('lab')
    .description('A real Kubernetes on this machine: see `weir lab --help`.')
    .addHelpText('after', '\nExamples:\n  weir lab up --nodes 3\n  weir lab --help        # all of its commands\n')
    .helpOption(false)
    .allowUnknownOption()
    .allowExcessArguments()
    .action(() => {
      throw new WeirError('CONFIG_INVALID', 'the lab is a program of its own', 'Run it with bin/weir lab.');
    });
}
