// `weir agent`: runs on every node.
import { hostname } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Command, InvalidArgumentError, Option } from 'commander';
import { defaultMetrics, parseMetric } from '../../observe/metrics/metric-options.ts';
import { parseListen } from '../../observe/metrics/parse-listen.ts';

const root = fileURLToPath(new URL('../../../', import.meta.url));

/** Parses a whole number in a range, for commander. */
export function wholeNumber(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!Number.isInteger(value) || value < min || value > max)
      throw new InvalidArgumentError(`give a whole number from ${min} to ${max}`);
    return value;
  };
}

/** Collects an option that may be given several times. */
export function collect(value: string, before: readonly string[] = []): string[] {
  return [...before, value];
}

function mapEntries(text: string, before: Record<string, number> = {}): Record<string, number> {
  const [name, count] = text.split('=');
  const value = Number(count);
  if (!name || !Number.isInteger(value) || value < 1)
    throw new InvalidArgumentError('give NAME=ENTRIES, such as ct4=262144');
  // What is counted of backends lies sixteen to an element.
  const counts = name === 'backends' ? [['backend_counts', Math.ceil(value / 16)]] : [];
  return { ...before, [name]: value, ...Object.fromEntries(counts) };
}

function listen(text: string): string {
  if (text !== 'off' && parseListen(text) === undefined)
    throw new InvalidArgumentError('give HOST:PORT, such as [::]:9965, or off');
  return text;
}

function flowMetrics(text: string, before: readonly string[] = []): readonly string[] {
  try {
    parseMetric(text);
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
  return [...before, text];
}

function regularExpressions(text: string, before: readonly string[] = []): readonly string[] {
  try {
    new RegExp(text, 'g');
  } catch (error) {
    throw new InvalidArgumentError((error as Error).message);
  }
  return [...before, text];
}

/** The command and its options. */
export function agentCommand(): Command {
  return new Command('agent')
    .description('Run the agent of a node: loads the datapath, serves the container runtime, enforces policy.')
    .option('--node-name <name>', 'the name of the Node object', process.env.WEIR_NODE_NAME ?? hostname())
    .option(
      '--kubeconfig <file>',
      'how to reach the API server (default: the pod’s service account, $KUBECONFIG or ~/.kube/config)',
    )
    .option('--state-dir <dir>', 'what must outlive restarts', '/var/lib/weir')
    .option('--run-dir <dir>', 'sockets', '/run/weir')
    .option('--bpffs <dir>', 'the bpf file system; maps and programs are pinned under DIR/weir', '/sys/fs/bpf')
    .option('--objects <dir>', 'the compiled datapath', join(root, 'build/bpf'))
    .option('--cni-bin-dir <dir>', 'where the container runtime looks for plugins', '/opt/cni/bin')
    .option('--cni-conf-dir <dir>', 'where it looks for configuration', '/etc/cni/net.d')
    .option('--cni-plugin <file>', 'the plugin to install', join(root, 'build/weir-cni'))
    .option(
      '--device <name>',
      'a device on which packets for pods arrive (repeat; default: found by addresses and routes)',
      collect,
    )
    .option('--mtu <bytes>', 'of pod interfaces (default: the smallest of the devices)', wholeNumber(1280, 65_535))
    .option(
      '--ignore-label <key>',
      'a label that does not count for identities, beyond the usual ones (repeat)',
      collect,
    )
    .option('--report-interval <seconds>', 'how often an active connection is reported', wholeNumber(1, 3600), 5)
    .option(
      '--drop-reports <count>',
      'drops reported a second, for each device and reason; all are counted',
      wholeNumber(1, 100_000),
      200,
    )
    .addOption(
      new Option('--lb-mode <mode>', 'how packets from outside reach backends on other nodes')
        .choices(['snat', 'dsr', 'hybrid'])
        .default('snat'),
    )
    .addOption(
      new Option('--dsr-dispatch <how>', 'with dsr: carry the frontend in an IP option, or tunnel the packet')
        .choices(['option', 'tunnel'])
        .default('option'),
    )
    .addOption(
      new Option(
        '--xdp <where>',
        'balance services in XDP: in the driver of physical devices, of all, behind it, or not',
      )
        .choices(['auto', 'native', 'generic', 'off'])
        .default('auto'),
    )
    .addOption(
      new Option(
        '--bind-protection <mode>',
        'whether processes of the node itself are refused ports that lead to services (node ports, host ports)',
      )
        .choices(['on', 'off'])
        .default('on'),
    )
    .addOption(
      new Option(
        '--announce <how>',
        'answer ARP and NDP for load balancer addresses on this node’s subnets; l2-all: for external IPs, too',
      )
        .choices(['l2', 'l2-all', 'none'])
        .default('l2'),
    )
    .addOption(
      new Option(
        '--policy-enforcement <mode>',
        'what becomes of policies that do not say so, nor their namespace: enforced, or only reported',
      )
        .choices(['enforced', 'staged'])
        .default('enforced'),
    )
    .addOption(
      new Option(
        '--policy-deny-response <what>',
        'what senders get when policy denies: nothing, or ICMP (a reset where a connection is open)',
      )
        .choices(['none', 'icmp'])
        .default('none'),
    )
    .addOption(
      new Option(
        '--host-firewall <mode>',
        'what policies for nodes do with the node’s own traffic: nothing, report what they would deny, or deny it',
      )
        .choices(['off', 'audit', 'enforce'])
        .default('audit'),
    )
    .option(
      '--export-config <file>',
      'what flows and processes are exported where (docs/export.md); read again when it changes',
    )
    .option('--metrics-listen <address>', 'where metrics are served for Prometheus; off: nowhere', listen, '[::]:9965')
    .option(
      '--metric <name:options>',
      'a metric of flows (repeat), such as "drop:labelsContext=source_namespace,source_workload"',
      flowMetrics,
    )
    .option(
      '--metrics-series <count>',
      'rows of each metric of flows; what is refused is counted',
      wholeNumber(1, 1_000_000),
      10_000,
    )
    .addOption(
      new Option(
        '--process-arguments <what>',
        'arguments of processes in flows: without what looks like a secret, all, or none',
      )
        .choices(['redacted', 'all', 'off'])
        .default('redacted'),
    )
    .option(
      '--redact-arguments <expression>',
      'what this matches in arguments is replaced, or its first group (repeat)',
      regularExpressions,
    )
    .option('--flows <count>', 'flows kept in memory', wholeNumber(64, 10_000_000), 16_384)
    .option('--flow-listen <address>', 'where flows are served on the network, with a certificate', '[::]:4244')
    .option('--flow-tls-cert-file <file>', 'the certificate of the flows’ server; read again when it changes')
    .option('--flow-tls-key-file <file>', 'its key')
    .option(
      '--flow-tls-client-ca-file <file>',
      'who reads flows over the network must have a certificate of this authority',
    )
    .option('--flow-insecure', 'serve flows on the network in the clear, without a certificate, to whoever comes')
    .option(
      '--map-entries <name=count>',
      'size of a map of the datapath (repeat); those of policy and addresses follow the memory of the machine',
      mapEntries,
    )
    .option('--log-level <level>', 'debug, info, warn or error', 'info')
    .addHelpText(
      'after',
      `
Examples:
  weir agent --node-name node1 --kubeconfig /etc/weir/kubeconfig
  weir agent --flow-tls-cert-file agents.crt --flow-tls-key-file agents.key --flow-tls-client-ca-file ca.crt
  weir agent --map-entries ct4=524288 --map-entries ct6=262144   # for busy nodes
`,
    )
    .action(async (options) => {
      const { runAgent } = await import('../agent/run-agent.ts');
      const { mapSizes } = await import('../agent/map-sizes.ts');
      const { totalmem } = await import('node:os');
      const { ignoredLabelKeys } = await import('../../core/identity.ts');
      await runAgent({
        nodeName: options.nodeName,
        kubeconfig: options.kubeconfig,
        stateDir: options.stateDir,
        runDir: options.runDir,
        bpffs: options.bpffs,
        objects: options.objects,
        cniBinDir: options.cniBinDir,
        cniConfDir: options.cniConfDir,
        cniPlugin: options.cniPlugin,
        devices: options.device ?? [],
        mtu: options.mtu,
        ignoredLabels: [...ignoredLabelKeys, ...(options.ignoreLabel ?? [])],
        reportIntervalMs: options.reportInterval * 1000,
        dropReportsPerSecond: options.dropReports,
        xdp: options.xdp,
        policyEnforcement: options.policyEnforcement,
        policyDenyResponse: options.policyDenyResponse,
        hostFirewall: options.hostFirewall,
        lbMode: options.lbMode,
        dsrDispatch: options.dsrDispatch,
        bindProtection: options.bindProtection,
        announce: options.announce,
        exportConfig: options.exportConfig,
        metricsListen: options.metricsListen,
        metrics: options.metric ?? defaultMetrics,
        metricsSeries: options.metricsSeries,
        processArguments: options.processArguments,
        redactArguments: options.redactArguments ?? [],
        flowCapacity: options.flows,
        flowListen: options.flowListen,
        flowTls: {
          certFile: options.flowTlsCertFile,
          keyFile: options.flowTlsKeyFile,
          caFile: options.flowTlsClientCaFile,
        },
        flowInsecure: options.flowInsecure === true,
        mapEntries: { ...mapSizes(totalmem()), ...options.mapEntries },
        logLevel: options.logLevel,
      });
    });
}
