// What the datapath has been told about a pod's device: there before an agent has read anything.
import type { BpfMap } from '../../kernel/bpf-map.ts';
import { datapathMaps } from '../../kernel/datapath.gen.ts';
import { typedMap } from '../../kernel/typed-map.ts';
import type { KernelEndpoint } from '../endpoints/endpoint-manager.ts';
import { addressText } from './address-keys.ts';

/** The row of a device in the endpoints map; undefined when there is none. */
export function kernelEndpoint(map: BpfMap, ifindex: number): KernelEndpoint | undefined {
  const row = typedMap(map, datapathMaps.endpoints).lookup(ifindex);
  if (row === undefined) return undefined;
  const text = (bytes: Uint8Array) => (bytes.every((byte) => byte === 0) ? undefined : addressText(bytes));
  return { identity: row.identity, ipv4: text(row.ip4), ipv6: text(row.ip6) };
}
