// `weir doctor`: what this machine has, what Weir needs it for, and what is used instead.
import { type Command, Option } from 'commander';
import type { OutputOptions } from './output.ts';
import { queryCommand } from './query-command.ts';
import type { TargetOptions } from './targets.ts';

/** The flags of `weir doctor`. */
export type DoctorOptions = OutputOptions &
  TargetOptions & {
    readonly cniConfDir: string;
    readonly fix?: string;
    readonly yes?: boolean;
    readonly dryRun?: boolean;
  };

/** The command. */
export function doctorCommand(): Command {
  return queryCommand(
    'doctor',
    'Find out what this kernel has, what Weir needs it for and what is used instead; whether agents answer; what is in the way.',
    [
      'weir doctor',
      'weir doctor --wide',
      'weir doctor -o json | jq \'.kernel[] | select(.state != "yes")\'',
      'weir doctor --fix kube-proxy --dry-run   # what kube-proxy has left on this node',
    ],
  )
    .option('--cni-conf-dir <dir>', 'where the container runtime looks for network configuration', '/etc/cni/net.d')
    .addOption(
      new Option('--fix <what>', 'remove from this node what another program has left; asks first').choices([
        'kube-proxy',
      ]),
    )
    .option('--yes', 'with --fix: do not ask')
    .option('--dry-run', 'with --fix: only list what is there')
    .action(async (options: DoctorOptions) => {
      if (options.fix !== undefined) {
        const { fixKubeProxy } = await import('./fix-kube-proxy.ts');
        return fixKubeProxy(options);
      }
      const { showDoctor } = await import('./doctor-report.ts');
      await showDoctor(options);
    });
}
