// A server of flows that is named by its address: a relay, or one agent. The flags are those of Hubble's own client.
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { checkServerIdentity, createSecureContext, type PeerCertificate } from 'node:tls';
import { WeirError } from '../../core/errors.ts';
import { relayName } from '../../observe/flows/peer-service.ts';
import { joinAddress, parseAddress } from '../../observe/rpc/rpc-address.ts';
import type { RpcTarget } from '../../observe/rpc/rpc-connection.ts';
import type { ServerOptions } from './server-options.ts';

/** Where to connect to, and how. */
export interface FlowServerTarget {
  /** As it was given. */
  readonly address: string;
  readonly rpc: RpcTarget;
}

const defaultPort = 4245;

/** The server that the flags name. */
export function flowServerTarget(flags: ServerOptions & { readonly server: string }): FlowServerTarget {
  const { server } = flags;
  const usage = (message: string) => new WeirError('CONFIG_INVALID', message, 'See `weir observe --help`.');
  let where: ReturnType<typeof parseAddress>;
  try {
    where = parseAddress(server, defaultPort);
  } catch (error) {
    throw usage(`--server: ${(error as Error).message}`);
  }
  const files = flags.tlsCaCertFiles ?? [];
  const { tlsClientCertFile: cert, tlsClientKeyFile: key, tlsServerName: name } = flags;
  if ((cert === undefined) !== (key === undefined))
    throw usage('--tls-client-cert-file and --tls-client-key-file belong together');
  const tls =
    server.startsWith('tls://') ||
    flags.tls === true ||
    flags.tokenFile !== undefined ||
    flags.tlsAllowInsecure === true ||
    files.length > 0 ||
    cert !== undefined ||
    name !== undefined;
  if (!tls || where.path !== undefined)
    return {
      address: server,
      rpc: { address: where.path === undefined ? joinAddress(where.host, where.port) : `unix:${where.path}` },
    };
  const read = (file: string) => {
    try {
      return readFileSync(file);
    } catch (error) {
      throw usage(`a file of certificates cannot be read: ${(error as Error).message}`);
    }
  };
  // An address cannot be asked for by name in TLS: the certificate is held against it afterwards.
  const address = name === undefined && isIP(where.host) > 0 ? where.host : undefined;
  const expected = name ?? (address === undefined ? undefined : relayName);
  const authorities = files
    .flatMap((each) => each.split(','))
    .map((file) => {
      const bytes = read(file);
      // Of a file without any, TLS would only say that nobody is trusted.
      if (!bytes.includes('-----BEGIN CERTIFICATE-----')) throw usage(`${file} has no certificate in PEM`);
      return bytes;
    });
  const ca = authorities.length === 0 ? undefined : Buffer.concat(authorities);
  const pair = { key: key === undefined ? undefined : read(key), cert: cert === undefined ? undefined : read(cert) };
  const trust = {
    rejectUnauthorized: flags.tlsAllowInsecure !== true,
    ...(address !== undefined && {
      checkServerIdentity: (_: string, certificate: PeerCertificate) => checkServerIdentity(address, certificate),
    }),
  };
  const { tokenFile } = flags;
  try {
    createSecureContext({ ca, ...pair });
  } catch (error) {
    throw usage(`the certificates cannot be used: ${(error as Error).message}`);
  }
  return {
    address: server,
    rpc: {
      address: joinAddress(where.host, where.port),
      tls: { material: { ca, ...pair }, serverName: expected ?? where.host, trust },
      ...(tokenFile !== undefined && { authorization: () => bearer(tokenFile) }),
    },
  };
}

/** The token is read for each call: whoever hands it out changes it now and then. */
function bearer(file: string): string {
  try {
    return `Bearer ${readFileSync(file, 'utf8').trim()}`;
  } catch (error) {
    throw new WeirError('CONFIG_INVALID', `--token-file cannot be read: ${(error as Error).message}`);
  }
}
