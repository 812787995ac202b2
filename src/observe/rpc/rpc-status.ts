// How a call of gRPC ended: the codes of the protocol, and the error that carries one.

/** Codes of gRPC. */
export const RpcCode = {
  ok: 0,
  cancelled: 1,
  unknown: 2,
  invalidArgument: 3,
  deadlineExceeded: 4,
  notFound: 5,
  permissionDenied: 7,
  resourceExhausted: 8,
  aborted: 10,
  unimplemented: 12,
  internal: 13,
  unavailable: 14,
  unauthenticated: 16,
} as const;

/** A failure that the other end is told, or told of. */
export class RpcError extends Error {
  readonly code: number;

  constructor(code: number, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'RpcError';
    this.code = code;
  }
}

/** Anything thrown, as an error of the protocol. */
export function asRpcError(thrown: unknown): RpcError {
  if (thrown instanceof RpcError) return thrown;
  return new RpcError(RpcCode.internal, thrown instanceof Error ? thrown.message : String(thrown));
}

const maxMessageChars = 1_000;

/** A message as a header may have it: printable ASCII, all else as %XX of its UTF-8. */
export function encodeStatusMessage(message: string): string {
  return message
    .slice(0, maxMessageChars)
    .toWellFormed()
    .replace(/[^ -$&-~]+/gu, (part) =>
      [...Buffer.from(part)].map((byte) => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`).join(''),
    );
}

/** The message of a header; what is no valid encoding is left as it is. */
export function decodeStatusMessage(header: string): string {
  try {
    return decodeURIComponent(header);
  } catch {
    return header;
  }
}

const timeoutUnits: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1_000, m: 1, u: 1e-3, n: 1e-6 };

/** Milliseconds of a `grpc-timeout` header; undefined when there is none, or none that can be read. */
export function parseTimeoutMs(header: string | undefined): number | undefined {
  const parts = /^(\d{1,8})([HMSmun])$/.exec(header ?? '');
  return parts === null ? undefined : Number(parts[1]) * timeoutUnits[parts[2]!]!;
}
