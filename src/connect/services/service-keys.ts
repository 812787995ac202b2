// Keys of the service maps.
import { type FrontendRow, protocolNumbers } from '../../core/rows.ts';
import { datapathMaps, ServiceScope } from '../../kernel/datapath.gen.ts';
import { addressBytes, blockKey } from '../datapath/address-keys.ts';

/** Of `services`. */
export function serviceKey(row: FrontendRow): Uint8Array {
  return datapathMaps.services.key.encode({
    addr: addressBytes(row.address),
    port: row.port,
    protocol: protocolNumbers[row.protocol],
    scope: row.scope === 'inside' ? ServiceScope.SCOPE_INSIDE : ServiceScope.SCOPE_OUTSIDE,
  });
}

/** Of `source_ranges`. */
export function sourceRangeKey(service: number, cidr: string): Uint8Array {
  const { prefixlen, addr } = blockKey(cidr);
  return datapathMaps.source_ranges.key.encode({ prefixlen: 32 + prefixlen, service, addr });
}

/** Of `direct_backends`. */
export function directKey(service: number, row: FrontendRow, backend: { address: string; port: number }): Uint8Array {
  return datapathMaps.direct_backends.key.encode({
    addr: addressBytes(backend.address),
    service,
    port: backend.port,
    protocol: protocolNumbers[row.protocol],
  });
}

/** A key as text, for sets. */
export const keyText = (key: Uint8Array) => Buffer.from(key.buffer, key.byteOffset, key.length).toString('latin1');

/** The key that `keyText` made a text of. */
export const keyBytesOf = (text: string) => Uint8Array.from(Buffer.from(text, 'latin1'));
