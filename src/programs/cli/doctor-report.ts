// Runs the checks of `weir doctor` and prints them: the kernel by trying, agents by asking, leftovers by looking.
import { findProxyTraces } from '../../connect/kube-proxy/leftovers.ts';
import { errorText, WeirError } from '../../core/errors.ts';
import { exitCodes } from '../../core/exit-codes.ts';
import { canRun, type DoctorRow, probeKernel } from '../../kernel/doctor.ts';
import { configsBefore } from '../agent/cni-install.ts';
import type { HostFirewallView } from '../agent/host-firewall-view.ts';
import type { HealthView } from '../agent/status-view.ts';
import type { DoctorOptions } from './doctor-command.ts';
import { type Column, printValue, tableText, terminalColumns } from './output.ts';
import { askAgent, resolveTargets, targetName } from './targets.ts';

/** One thing that was looked at beyond the kernel. */
interface Finding {
  readonly check: string;
  readonly state: 'ok' | 'problem' | 'unknown';
  readonly detail: string;
  readonly action: string;
}

/** Prints the report; exit code 5 when Weir cannot run here, 4 when an agent that a context names does not answer. */
export async function showDoctor(options: DoctorOptions): Promise<void> {
  const kernel = probeKernel();
  const able = canRun(kernel);
  const { findings, unreachable } = await agentFindings(options);
  findings.push(...configFindings(options.cniConfDir), ...proxyFindings());
  if (!able) process.exitCode = exitCodes.notPermitted;
  else if (unreachable) process.exitCode = exitCodes.unreachable;
  if (options.output !== 'table') return printValue({ canRun: able, kernel, findings }, options);
  process.stdout.write(reportText(kernel, findings, { wide: options.wide, terminalColumns: terminalColumns() }));
}

/** The report for people. What is missing without a way round comes last, where the eye ends. */
function reportText(
  kernel: readonly DoctorRow[],
  findings: readonly Finding[],
  options: { readonly wide?: boolean; readonly terminalColumns?: number },
): string {
  const columns: Column<DoctorRow>[] = [
    { title: 'KERNEL', value: (row) => row.feature },
    { title: 'HERE', value: (row) => (row.state === 'no' && row.required ? 'NO' : row.state) },
    { title: 'NEEDED FOR', value: (row) => row.neededFor, shrinkTo: 20 },
    { title: 'INSTEAD', value: (row) => row.insteadUsed, shrinkTo: 10 },
    { title: 'DETAIL', value: (row) => row.detail, shrinkTo: 10 },
  ];
  const findingColumns: Column<Finding>[] = [
    { title: 'CHECK', value: (row) => row.check },
    { title: 'STATE', value: (row) => row.state },
    { title: 'DETAIL', value: (row) => row.detail, shrinkTo: 20 },
    { title: 'TO DO', value: (row) => row.action, shrinkTo: 20 },
  ];
  const missing = kernel.filter((row) => row.required && row.state === 'no');
  const unknown = kernel.filter((row) => row.required && row.state === 'unknown');
  const lines = [
    ...missing.map((row) => `Missing: ${row.feature}, needed for ${row.neededFor}: ${row.detail}\n`),
    ...[...Map.groupBy(unknown, (row) => row.detail)].map(
      ([why, rows]) => `Not known: ${rows.map((row) => row.feature).join(', ')}: ${why}\n`,
    ),
    missing.length > 0
      ? 'Weir cannot run on this machine.\n'
      : unknown.length > 0
        ? 'Weir can probably run on this machine: run this as root to be sure.\n'
        : 'Weir can run on this machine.\n',
  ];
  return `${tableText(columns, kernel, options)}\n${tableText(findingColumns, findings, options)}\n${lines.join('')}`;
}

async function agentFindings(options: DoctorOptions): Promise<{ findings: Finding[]; unreachable: boolean }> {
  const asked = { context: options.context, node: options.node, socket: options.socket };
  const named = Object.values(asked).some((value) => value !== undefined);
  let resolved: ReturnType<typeof resolveTargets>;
  try {
    resolved = resolveTargets(asked);
  } catch (error) {
    if (named || !(error instanceof WeirError)) throw error;
    // Several labs are up and none was named: that is no finding about this machine.
    const finding = { check: 'agents', state: 'unknown', detail: errorText(error), action: error.hint } as const;
    return { findings: [finding], unreachable: false };
  }
  let unreachable = false;
  const findings = await Promise.all(
    resolved.targets.map(async (target): Promise<Finding | Finding[]> => {
      const check = `agent ${target.node ?? target.socket}`;
      try {
        const health = await askAgent<HealthView>(target, '/v1/health');
        const detail = health?.healthy ? 'healthy' : (health?.problems.join('; ') ?? 'an older agent');
        const agent: Finding = health?.healthy
          ? { check, state: 'ok', detail, action: '' }
          : { check, state: 'problem', detail, action: 'see `weir status`' };
        return [agent, ...hostFirewallFindings(await askAgent<HostFirewallView>(target, '/v1/host-firewall'))];
      } catch (error) {
        if (!(error instanceof WeirError)) throw error;
        if (!named && resolved.context === undefined)
          return { check, state: 'unknown', detail: `none answers on ${targetName(target)}`, action: '' };
        unreachable = true;
        return { check, state: 'problem', detail: error.message, action: error.hint };
      }
    }),
  );
  return { findings: findings.flat(), unreachable };
}

/** What the policies for a node cut, or would. */
function hostFirewallFindings(view: HostFirewallView | undefined): Finding[] {
  if (view === undefined || view.policies.length === 0) return [];
  const check = `host firewall ${view.node}`;
  const doing = { off: 'would deny, were it on:', audit: 'would deny:', enforce: 'denies:' }[view.mode];
  const named = `${view.policies.length} ${view.policies.length === 1 ? 'policy' : 'policies'}, mode ${view.mode}`;
  if (view.denials.length === 0)
    return [{ check, state: 'ok', detail: `${named}: denies nothing that is open or listens`, action: '' }];
  const rows = view.denials.map(({ what, direction, peer, protocol, port, policies }): Finding => {
    const way = direction === 'ingress' ? `from ${peer} to ${port}/${protocol}` : `to ${peer} ${port}/${protocol}`;
    const seen = { open: 'an open connection', listening: 'to a socket that listens,', seen: 'a connection' }[what];
    return {
      check,
      state: what === 'listening' || view.mode === 'enforce' ? 'ok' : 'problem',
      detail: `${doing} ${seen} ${way}`,
      action: `denied by ${policies.join(', ')}${view.mode === 'enforce' ? '' : '; allow it there before `--host-firewall enforce`'}`,
    };
  });
  const more = view.more === 0 ? [] : [{ check, state: 'unknown' as const, detail: `${view.more} more`, action: '' }];
  return [...rows, ...more];
}

/** Configurations of other network plugins that the container runtime takes before Weir's. */
function configFindings(folder: string): Finding[] {
  const check = 'network configuration';
  try {
    const files = configsBefore(folder);
    if (files.length === 0) return [{ check, state: 'ok', detail: `nothing before Weir’s in ${folder}`, action: '' }];
    const detail = `the container runtime takes ${files.join(', ')} in ${folder} before Weir’s`;
    return [{ check, state: 'problem', detail, action: 'remove what another network plugin left there' }];
  } catch (error) {
    return [{ check, state: 'unknown', detail: errorText(error), action: 'run it as root' }];
  }
}

/** kube-proxy and what it left: two that translate the same services get in each other's way. */
function proxyFindings(): Finding[] {
  const check = 'kube-proxy';
  if (process.getuid?.() !== 0)
    return [{ check, state: 'unknown', detail: 'only root sees the rules of this node', action: 'run it as root' }];
  const { running, leftovers, unknown } = findProxyTraces();
  const findings: Finding[] = [
    ...running.map(({ pid }) => ({
      check,
      state: 'problem' as const,
      detail: `process ${pid} runs: it translates the services that Weir translates, and puts back rules that are removed`,
      action: 'end kube-proxy, then `weir doctor --fix kube-proxy`',
    })),
    ...leftovers.map(({ what, harm }) => ({
      check,
      state: 'problem' as const,
      detail: `${what}: ${harm}`,
      action: '`weir doctor --fix kube-proxy`',
    })),
    ...unknown.map((detail) => ({ check, state: 'unknown' as const, detail, action: '' })),
  ];
  return findings.length > 0
    ? findings
    : [{ check, state: 'ok', detail: 'neither it nor anything it left', action: '' }];
}
