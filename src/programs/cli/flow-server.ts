// A server of flows that is named by its address: a relay, or one agent. The flags are those of Hubble's own client.
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { checkServerIdentity, type PeerCertificate } from 'node:tls';
import type { DescService } from '@bufbuild/protobuf';
import * as grpc from '@grpc/grpc-js';
import { WeirError } from '../../core/errors.ts';
import { serviceClient } from '../../observe/flows/grpc-service.ts';
import { relayName } from '../../observe/flows/peer-service.ts';
import { joinAddress, parseAddress } from '../../observe/rpc/rpc-address.ts';
import type { RpcTarget } from '../../observe/rpc/rpc-connection.ts';
import type { ServerOptions } from './server-options.ts';

/** Where to connect to, and how: once for the library, which asks, and once for who reads long streams. */
export interface FlowServerTarget {
  readonly address: string;
  readonly rpc: RpcTarget;
  readonly target: string;
  readonly credentials: grpc.ChannelCredentials;
  readonly options: grpc.ClientOptions;
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
  const target = where.path === undefined ? `dns:${joinAddress(where.host, where.port)}` : `unix:${where.path}`;
  if (!tls || where.path !== undefined)
    return {
      address: server,
      rpc: { address: where.path === undefined ? joinAddress(where.host, where.port) : `unix:${where.path}` },
      target,
      credentials: grpc.credentials.createInsecure(),
      options: {},
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
  const authorities = files.flatMap((each) => each.split(',')).map(read);
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
    const secure = grpc.credentials.createSsl(ca ?? null, pair.key ?? null, pair.cert ?? null, trust);
    return {
      address: server,
      rpc: {
        address: joinAddress(where.host, where.port),
        tls: { material: { ca, ...pair }, serverName: expected ?? where.host, trust },
        ...(tokenFile !== undefined && { authorization: () => bearer(tokenFile) }),
      },
      target,
      credentials:
        tokenFile === undefined ? secure : grpc.credentials.combineChannelCredentials(secure, token(tokenFile)),
      options:
        expected === undefined ? {} : { 'grpc.ssl_target_name_override': expected, 'grpc.default_authority': expected },
    };
  } catch (error) {
    if (error instanceof WeirError) throw error;
    throw usage(`the certificates cannot be used: ${(error as Error).message}`);
  }
}

/** The token is read for each call: whoever hands it out changes it now and then. */
function bearer(file: string): string {
  try {
    return `Bearer ${readFileSync(file, 'utf8').trim()}`;
  } catch (error) {
    throw new WeirError('CONFIG_INVALID', `--token-file cannot be read: ${(error as Error).message}`);
  }
}

function token(file: string): grpc.CallCredentials {
  return grpc.credentials.createFromMetadataGenerator((_, done) => {
    const metadata = new grpc.Metadata();
    try {
      metadata.set('authorization', bearer(file));
    } catch (error) {
      done(error as Error);
      return;
    }
    done(null, metadata);
  });
}

/** A client of the server. */
export function flowServerClient(
  service: DescService,
  { target, credentials, options }: FlowServerTarget,
): ReturnType<typeof serviceClient> {
  return serviceClient(
    service,
    target,
    {
      ...options,
      'grpc.max_receive_message_length': 16 << 20,
      'grpc.enable_retries': 0,
      'grpc.use_local_subchannel_pool': 1,
    },
    credentials,
  );
}
