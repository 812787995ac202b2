// What is noted at a pod's device beside its file: whose it is. The note lives as long as the device does, so an endpoint
// whose file is lost can be made again from it, from the kernel's row and from the interface inside the pod.
import type { EndpointRow } from '../../core/rows.ts';
import { longestAliasBytes } from '../../kernel/links.ts';

/** Whose a device is. Namespace and name are left out when they are too long; the API knows them by the uid. */
export type DeviceNote = Pick<EndpointRow, 'containerId' | 'interfaceName' | 'netns'> & {
  readonly podUid?: string;
  readonly namespace?: string;
  readonly pod?: string;
};

const version = 'weir1';

/** The note's text; undefined when not even the container fits. */
export function formatNote(note: DeviceNote): string | undefined {
  const short = [version, note.containerId, note.interfaceName, note.netns, note.podUid ?? ''];
  // Nothing of it has a space in it, as the runtime and the API give it out; else there is no telling where a field ends.
  const fits = (fields: readonly string[]) => {
    const text = fields.join(' ');
    return fields.some((field) => /\s/.test(field)) || Buffer.byteLength(text) > longestAliasBytes ? undefined : text;
  };
  return fits([...short, note.namespace ?? '', note.pod ?? '']) ?? fits(short);
}

/** Reads a note; undefined when it is none of ours. */
export function parseNote(text: string): DeviceNote | undefined {
  const [first, containerId, interfaceName, netns, podUid, namespace, pod] = text.split(' ');
  if (first !== version || !containerId || !interfaceName || !netns) return undefined;
  return {
    containerId,
    interfaceName,
    netns,
    podUid: podUid || undefined,
    namespace: namespace || undefined,
    pod: pod || undefined,
  };
}
