// Asks the datapath which backend a connection gets: the question goes through the program's own steps.
import { join } from 'node:path';
import { type LoadedObject, loadObject } from '../../kernel/bpf-object.ts';
import { datapathMaps, PickCause, type PickQuery, pickQuery, ServiceScope } from '../../kernel/datapath.gen.ts';
import { testRun } from '../../kernel/test-run.ts';
import { addressBytes } from '../datapath/address-keys.ts';

/** A connection that somebody would make. */
export interface PickQuestion {
  readonly client: string;
  readonly clientPort: number;
  readonly address: string;
  readonly port: number;
  readonly protocol: number;
  readonly scope: 'inside' | 'outside';
  /** The address is a node's whose node ports are served here. */
  readonly nodePort: boolean;
  /** The cookie of the client's network namespace, when it is a socket of this node. */
  readonly netns?: bigint;
}

/** Why a backend is the one. `random`: it is not known before it comes to it. */
export type PickReason = 'none' | 'random' | 'maglev' | 'affinity' | 'known connection';

/** What the datapath would do. */
export interface PickAnswer {
  /** Id of the frontend. */
  readonly service: number;
  /** The client is in the frontend's source ranges, if it has any. */
  readonly admitted: boolean;
  readonly reason: PickReason;
  /** Number of the backend; undefined for nobody, and where dice are rolled. */
  readonly backend?: number;
  readonly slotCount: number;
}

/** The loaded program. */
export interface ServicePick {
  /** Undefined when the address and port are no frontend. */
  ask(question: PickQuestion): PickAnswer | undefined;
  close(): void;
}

const questionOffset = 16;
const reasons: Readonly<Record<number, PickReason>> = {
  [PickCause.PICK_NONE]: 'none',
  [PickCause.PICK_RANDOM]: 'random',
  [PickCause.PICK_MAGLEV]: 'maglev',
  [PickCause.PICK_AFFINITY]: 'affinity',
  [PickCause.PICK_FLOW]: 'known connection',
};

/** Loads the program when it is first asked; it reads the pinned maps. */
export function createServicePick(options: {
  readonly objects: string;
  readonly pinDir: string;
  readonly maxEntries?: Record<string, number>;
}): ServicePick {
  let object: LoadedObject | undefined;
  const load = (): LoadedObject => {
    const known = new Set(Object.keys(datapathMaps));
    const wanted = ['services', 'lb_slots', 'backends', 'source_ranges', 'service_affinity', 'service_flows'];
    const sizes = Object.entries(options.maxEntries ?? {}).filter(([name]) => known.has(name) && wanted.includes(name));
    return loadObject({
      path: join(options.objects, 'pick.bpf.o'),
      pinDir: join(options.pinDir, 'maps'),
      maxEntries: Object.fromEntries(sizes),
    });
  };
  return {
    ask(question) {
      object ??= load();
      const packet = new Uint8Array(questionOffset + pickQuery.size);
      packet.set(pickQuery.encode(encodeQuestion(question)), questionOffset);
      const { retval, data } = testRun(object.program('pick').fd, packet);
      if (retval !== 0) throw new Error(`the program answered ${retval}`);
      const { found, admitted, answer } = pickQuery.decode(data, questionOffset);
      if (found === 0) return undefined;
      return {
        service: answer.service,
        admitted: admitted !== 0,
        reason: reasons[answer.cause] ?? 'none',
        slotCount: answer.slotCount,
        ...(answer.backend === 0 ? {} : { backend: answer.backend }),
      };
    },
    close: () => object?.close(),
  };
}

function encodeQuestion(question: PickQuestion): PickQuery {
  return {
    client: addressBytes(question.client),
    addr: addressBytes(question.address),
    netns: question.netns ?? 0n,
    clientPort: question.clientPort,
    port: question.port,
    protocol: question.protocol,
    scope: question.scope === 'inside' ? ServiceScope.SCOPE_INSIDE : ServiceScope.SCOPE_OUTSIDE,
    nodePort: question.nodePort ? 1 : 0,
    found: 0,
    admitted: 0,
    answer: { service: 0, flags: 0, slotCount: 0, cause: 0, backend: 0 },
  };
}
