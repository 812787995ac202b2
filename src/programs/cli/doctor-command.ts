// `weir doctor`: what this machine has, what Weir needs it for, and what is used instead.
import type { Command } from 'commander';
import type { OutputOptions } from './output.ts';
import { queryCommand } from './query-command.ts';
import type { TargetOptions } from './targets.ts';

/** The flags of `weir doctor`. */
export type DoctorOptions = OutputOptions & TargetOptions & { readonly cniConfDir: string };

/** The command. */
export function doctorCommand(): Command {
  return queryCommand(
    'doctor',
    'Find out what this kernel has, what Weir needs it for and what is used instead; whether agents answer; what is in the way.',
    ['weir doctor', 'weir doctor --wide', 'weir doctor -o json | jq \'.kernel[] | select(.state != "yes")\''],
  )
    .option('--cni-conf-dir <dir>', 'where the container runtime looks for network configuration', '/etc/cni/net.d')
    .action(async (options: DoctorOptions) => {
      const { showDoctor } = await import('./doctor-report.ts');
      await showDoctor(options);
    });
}
