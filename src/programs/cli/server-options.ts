// The flags that name a server of flows: a file of its own, as --help must not load what reading flows needs.
import type { Command } from 'commander';
import { collect } from './agent-command.ts';

/** The values of the flags that `addServerOptions` adds. */
export interface ServerOptions {
  readonly server?: string;
  readonly tls?: boolean;
  readonly tlsAllowInsecure?: boolean;
  readonly tlsCaCertFiles?: readonly string[];
  readonly tlsClientCertFile?: string;
  readonly tlsClientKeyFile?: string;
  readonly tlsServerName?: string;
  readonly tokenFile?: string;
}

/** Adds --server and how to trust it. */
export function addServerOptions(command: Command): Command {
  return command
    .option('--server <ADDRESS>', 'a relay or an agent by its address, instead of a context: host:port or unix:/path')
    .option('--tls', 'with --server: speak TLS; the other flags of it and tls://host:port say so, too')
    .option('--tls-ca-cert-files <FILES>', 'with --server: trust these authorities', collect)
    .option('--tls-client-cert-file <FILE>', 'with --server: the certificate to show')
    .option('--tls-client-key-file <FILE>', 'with --server: its key')
    .option('--tls-server-name <NAME>', 'with --server: the name that its certificate must have')
    .option('--token-file <FILE>', 'with --server: the token in this file says who asks')
    .option('--tls-allow-insecure', 'with --server: take any certificate');
}
