// Where a server of gRPC is: `unix:/path`, `unix:///path`, or host and port.
import { isIP } from 'node:net';

/** A path, or host and port. */
export type RpcAddress =
  | { readonly path: string; readonly host?: undefined; readonly port?: undefined }
  | { readonly path?: undefined; readonly host: string; readonly port: number };

/** Parses an address; throws with what is wrong. */
export function parseAddress(text: string, defaultPort?: number): RpcAddress {
  const path = /^unix:(?:\/\/)?(.+)$/.exec(text)?.[1];
  if (path !== undefined) return { path };
  const parts = /^(?:tls:\/\/|tcp:\/\/)?(?:\[([^\]]+)\]|([^:[\]]*))(?::(\d{1,5}))?$/.exec(text);
  const port = parts?.[3] === undefined ? defaultPort : Number(parts[3]);
  if (parts === null || port === undefined || port > 65_535)
    throw new Error(`${JSON.stringify(text)} is no address, such as [::]:4244, host:4245 or unix:/path`);
  return { host: parts[1] ?? parts[2]!, port };
}

/** Host and port in one text. */
export function joinAddress(host: string, port: number): string {
  return isIP(host) === 6 ? `[${host}]:${port}` : `${host}:${port}`;
}
