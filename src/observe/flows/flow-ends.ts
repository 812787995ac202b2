// Names the ends of flows: address and identity → pod, labels, workload. Answers are remembered per address and shared
// by all flows of it; what changes in the tables is forgotten. A pod that is gone keeps its name for what still comes.
import { podOfIdentity, reservedIdentities, reservedIdentityRows } from '../../core/identity.ts';
import { formatAddress, type IpAddress } from '../../core/ip.ts';
import type { AddressRow, IdentityRow } from '../../core/rows.ts';
import type { ReadTable } from '../../core/table.ts';
import type { FlowEnd } from './flow-row.ts';

/** The tables that names come from. */
export interface EndTables {
  readonly addresses: ReadTable<AddressRow>;
  readonly identities: ReadTable<IdentityRow>;
}

/** Names ends. */
export interface FlowEnds {
  /** The end with the 16 bytes at `words[at..at+3]`; identity 0 stands for "as the tables say". */
  find(words: Int32Array, at: number, identity: number): FlowEnd;
  /** The end of a pod of this node by the host side of its veth, under the address that its packet claims. */
  byIfindex(ifindex: number): FlowEnd | undefined;
  close(): void;
}

const cacheLimit = 65_536;
const departedLimit = 8_192;
const departedMs = 10 * 60_000;
/** ::ffff:0:0 as the third word of an address, in the machine's order. */
const mappedMark = new Int32Array(new Uint8Array([0, 0, 0xff, 0xff]).buffer)[0]!;

/** Where the sockets of an address are. */
function placeOf(row: AddressRow | undefined): number {
  if (row === undefined) return -1;
  return row.ifindex > 0 ? row.ifindex : row.kind === 'host' ? 0 : -1;
}

/** Makes the naming over the tables; `nowMs` is for tests. */
export function createFlowEnds(tables: EndTables, nowMs: () => number = Date.now): FlowEnds {
  const { addresses, identities } = tables;
  const v4 = new Map<number, FlowEnd>();
  const v6 = new Map<string, FlowEnd>();
  const byText = new Map<string, number | string>();
  const departed = new Map<string, { row: AddressRow; untilMs: number }>();
  const ifindexes = new Map<number, AddressRow>();
  const reserved = new Map(reservedIdentityRows().map((row) => [row.id, row.labels]));
  const bytes = new Uint8Array(16);
  const byteWords = new Int32Array(bytes.buffer);

  function forget(address: string): void {
    const key = byText.get(address);
    if (key === undefined) return;
    byText.delete(address);
    if (typeof key === 'number') v4.delete(key);
    else v6.delete(key);
  }
  function forgetAll(): void {
    v4.clear();
    v6.clear();
    byText.clear();
  }

  const stops = [
    addresses.subscribe(({ changes }) => {
      for (const { before, after } of changes) {
        forget((after ?? before)!.address);
        if (before !== undefined && before.ifindex > 0 && ifindexes.get(before.ifindex)?.address === before.address)
          ifindexes.delete(before.ifindex);
        if (after !== undefined && after.ifindex > 0) ifindexes.set(after.ifindex, after);
        if (after !== undefined || before?.kind !== 'pod') continue;
        departed.delete(before.address);
        departed.set(before.address, { row: before, untilMs: nowMs() + departedMs });
        if (departed.size > departedLimit) departed.delete(departed.keys().next().value!);
      }
    }),
    // What is new is not in the cache: only what an identity no longer means has to go.
    identities.subscribe(({ changes }) => {
      if (changes.some(({ before }) => before !== undefined)) forgetAll();
    }),
  ];
  for (const row of addresses.rows()) if (row.ifindex > 0) ifindexes.set(row.ifindex, row);

  function labelsOf(identity: number): readonly string[] | undefined {
    return reserved.get(identity) ?? identities.get(identity)?.labels;
  }

  function endOf(address: string, row: AddressRow | undefined, identity: number): FlowEnd {
    return {
      address,
      identity,
      labels: labelsOf(identity) ?? [],
      endpointId: row?.endpointId ?? 0,
      ifindex: placeOf(row),
      namespace: row?.namespace ?? '',
      pod: row?.pod ?? '',
      workloadKind: row?.workload?.kind ?? '',
      workloadName: row?.workload?.name ?? '',
    };
  }

  /** Who was at the address with this identity. */
  function holderOf(address: string, identity: number): AddressRow | undefined {
    const row = addresses.get(address);
    if (row?.identity === identity || (row !== undefined && identity === 0)) return row;
    // Connections of a pod that is gone may end when another one has had its address for long.
    const gone = departed.get(address);
    if (gone !== undefined && gone.untilMs > nowMs() && (identity === 0 || identity === gone.row.identity))
      return gone.row;
    const labels = labelsOf(identity);
    const namespace = labels && podOfIdentity(labels)?.namespace;
    return namespace !== undefined && namespace !== row?.namespace ? undefined : row;
  }

  function resolve(address: string, identity: number): FlowEnd {
    const row = holderOf(address, identity);
    if (row !== undefined) return endOf(address, row, identity || row.identity);
    const world = address.includes(':') ? reservedIdentities['world-ipv6'] : reservedIdentities['world-ipv4'];
    return endOf(address, undefined, identity || world);
  }

  function textOf(words: Int32Array, at: number, mapped: boolean): string {
    for (let i = 0; i < 4; i++) byteWords[i] = words[at + i]!;
    const address: IpAddress = mapped ? { family: 4, bytes: bytes.subarray(12) } : { family: 6, bytes };
    return formatAddress(address);
  }

  function keep(end: FlowEnd, key: number | string): FlowEnd {
    // Labels that are still on their way are asked for again.
    if (end.labels.length === 0) return end;
    if (byText.size >= cacheLimit) forgetAll();
    byText.set(end.address, key);
    if (typeof key === 'number') v4.set(key, end);
    else v6.set(key, end);
    return end;
  }

  return {
    find(words, at, identity) {
      const [w0, w1, w2, w3] = [words[at]!, words[at + 1]!, words[at + 2]!, words[at + 3]!];
      const mapped = w0 === 0 && w1 === 0 && w2 === mappedMark;
      const key = mapped
        ? w3
        : String.fromCharCode(
            w0 & 0xffff,
            w0 >>> 16,
            w1 & 0xffff,
            w1 >>> 16,
            w2 & 0xffff,
            w2 >>> 16,
            w3 & 0xffff,
            w3 >>> 16,
          );
      const known = typeof key === 'number' ? v4.get(key) : v6.get(key);
      if (known !== undefined && (identity === 0 || known.identity === identity)) return known;
      return keep(resolve(known?.address ?? textOf(words, at, mapped), identity), key);
    },
    byIfindex(ifindex) {
      const row = ifindexes.get(ifindex);
      return row === undefined ? undefined : endOf(row.address, row, row.identity);
    },
    close() {
      for (const stop of stops) stop();
    },
  };
}
