// `weir relay`: one or a few for a cluster.
import { Command, Option } from 'commander';
import { WeirError } from '../../core/errors.ts';
import { collect, wholeNumber } from './agent-command.ts';

interface OidcFlags {
  readonly oidcIssuer?: string;
  readonly oidcAudience?: string;
  readonly oidcJwks?: string;
  readonly oidcCaFile?: string;
  readonly oidcUsernameClaim: string;
  readonly oidcGroupsClaim: string;
  readonly oidcPrefix: string;
}

function oidcOf(flags: OidcFlags) {
  const { oidcIssuer: issuer, oidcAudience: audience } = flags;
  if (issuer === undefined && audience === undefined && flags.oidcJwks === undefined) return undefined;
  if (issuer === undefined || audience === undefined)
    throw new WeirError(
      'CONFIG_INVALID',
      '--oidc-issuer and --oidc-audience belong together',
      'Give both: a token for somebody else would be taken otherwise.',
    );
  return {
    issuer,
    audience,
    jwks: flags.oidcJwks,
    caFile: flags.oidcCaFile,
    usernameClaim: flags.oidcUsernameClaim,
    groupsClaim: flags.oidcGroupsClaim,
    prefix: flags.oidcPrefix,
  };
}

/** The command and its options. */
export function relayCommand(): Command {
  return new Command('relay')
    .description('Run a relay: the flows of all nodes, merged by time, for clients of the Hubble API.')
    .option(
      '--listen <address>',
      'where clients connect: host:port or unix:/path (repeat; default: [::]:4245 with a certificate, else 127.0.0.1:4245)',
      collect,
    )
    .option(
      '--peers <source>',
      'who tells of the nodes: kubernetes, or an agent by unix:/path or host:port',
      'unix:/run/weir/hubble.sock',
    )
    .option('--peer-port <port>', 'where nodes of Kubernetes serve their flows', wholeNumber(1, 65_535), 4244)
    .option(
      '--kubeconfig <file>',
      'how to reach the API server (default: the pod’s service account, $KUBECONFIG or ~/.kube/config)',
    )
    .option('--tls-cert-file <file>', 'the certificate that clients are shown; read again when it changes')
    .option('--tls-key-file <file>', 'its key')
    .option('--tls-client-ca-file <file>', 'clients must show a certificate of this authority')
    .addOption(
      new Option('--tls-client-auth <mode>', 'whether clients without such a certificate are let in')
        .choices(['required', 'optional'])
        .default('required'),
    )
    .option(
      '--agent-cert-file <file>',
      'the certificate that agents are shown; without it only agents in the clear are read',
    )
    .option('--agent-key-file <file>', 'its key')
    .option('--agent-ca-file <file>', 'the authority of the agents’ certificates')
    .addOption(
      new Option(
        '--access <mode>',
        'enforce: clients see the namespaces that a FlowAccess or a role grants them (default with a certificate); off: everything',
      ).choices(['off', 'enforce']),
    )
    .option(
      '--access-admin-group <name>',
      'members of this group, and the user of this name, see everything (repeat; default: weir:admins)',
      collect,
    )
    .option('--oidc-issuer <url>', 'take tokens of this issuer, beside those of Kubernetes')
    .option('--oidc-audience <name>', 'for whom they must be')
    .option('--oidc-jwks <file>', 'its keys: a file or an address of HTTPS (default: as the issuer’s discovery says)')
    .option('--oidc-ca-file <file>', 'the authority of the issuer’s certificate')
    .option('--oidc-username-claim <claim>', 'the claim that is the user’s name', 'sub')
    .option('--oidc-groups-claim <claim>', 'the claim that has the user’s groups', 'groups')
    .option('--oidc-prefix <text>', 'what stands before names and groups of these tokens', 'oidc:')
    .option('--insecure', 'serve clients in the clear on addresses that others can reach')
    .option('--metrics-listen <address>', 'where metrics for Prometheus are served; "off": nowhere', '[::]:9967')
    .option('--log-level <level>', 'debug, info, warn or error', 'info')
    .addHelpText(
      'after',
      `
Examples:
  weir relay                              # on a node: flows of all nodes in the clear, for clients of this machine
  weir relay --peers kubernetes --tls-cert-file relay.crt --tls-key-file relay.key \\
    --tls-client-ca-file client-ca.crt \\
    --agent-cert-file relay.crt --agent-key-file relay.key --agent-ca-file ca.crt

\`weir certs issue\` makes the certificates; \`weir observe --server localhost:4245\` is what a client says.
`,
    )
    .action(async (options) => {
      const { runRelay } = await import('../relay/run-relay.ts');
      const stop = new AbortController();
      for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => stop.abort());
      await runRelay(
        {
          listen: options.listen ?? [options.tlsCertFile === undefined ? '127.0.0.1:4245' : '[::]:4245'],
          peers: options.peers,
          peerPort: options.peerPort,
          kubeconfig: options.kubeconfig,
          tls: { certFile: options.tlsCertFile, keyFile: options.tlsKeyFile, caFile: options.tlsClientCaFile },
          clientAuth: options.tlsClientAuth,
          agentTls: { certFile: options.agentCertFile, keyFile: options.agentKeyFile, caFile: options.agentCaFile },
          access: options.access,
          accessAdmins: options.accessAdminGroup ?? ['weir:admins'],
          oidc: oidcOf(options),
          insecure: options.insecure === true,
          metricsListen: options.metricsListen,
          logLevel: options.logLevel,
        },
        stop.signal,
      );
      process.exit(0);
    });
}
