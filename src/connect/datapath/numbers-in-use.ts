// The highest numbers that the kernel's rows name. Whoever hands out numbers after a restart begins above them where its
// own notes are missing or a moment old: a number that got another meaning while rows still point to it would, until
// the last of them is rewritten, let through or deny what no policy says.
import { datapathMaps } from '../../kernel/datapath.gen.ts';
import { typedMap } from '../../kernel/typed-map.ts';
import { addressText, blockText } from './address-keys.ts';
import type { DatapathMaps } from './datapath-writer.ts';

/** Highest numbers in use; 0 where there are none. */
export interface NumbersInUse {
  readonly class: number;
  readonly ruleset: number;
  readonly cookie: number;
}

/** Reads the maps of policy and addresses. */
export function numbersInUse(
  maps: Pick<DatapathMaps, 'ipcache' | 'ipcachePrefix' | 'policyPeer' | 'policyPorts'>,
): NumbersInUse {
  const most = { class: 0, ruleset: 0, cookie: 0 };
  const see = (kind: keyof NumbersInUse, number: number) => {
    if (number > most[kind]) most[kind] = number;
  };
  for (const { value } of typedMap(maps.ipcache, datapathMaps.ipcache).entries()) see('class', value.class);
  for (const { value } of typedMap(maps.ipcachePrefix, datapathMaps.ipcache_prefix).entries())
    see('class', value.class);
  for (const { key, value } of typedMap(maps.policyPeer, datapathMaps.policy_peer).entries()) {
    see('class', key.subject);
    see('class', key.peer);
    see('ruleset', value.ruleset);
  }
  for (const { key, value } of typedMap(maps.policyPorts, datapathMaps.policy_ports).entries()) {
    see('ruleset', key.ruleset);
    see('cookie', value.cookie);
  }
  return most;
}

/** The class of each address and block that the kernel has. */
export function* classesInKernel(
  maps: Pick<DatapathMaps, 'ipcache' | 'ipcachePrefix'>,
): IterableIterator<[address: string, number: number]> {
  for (const { key, value } of typedMap(maps.ipcache, datapathMaps.ipcache).entries())
    yield [addressText(key.addr), value.class];
  for (const { key, value } of typedMap(maps.ipcachePrefix, datapathMaps.ipcache_prefix).entries())
    yield [blockText(key), value.class];
}
