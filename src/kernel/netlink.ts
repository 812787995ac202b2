// Netlink: requests to the kernel's networking, answered synchronously, without child processes.
// Kernel: Documentation/userspace-api/netlink/intro.rst. Everything is in the machine's (little) byte order.
import { KernelError } from './kernel-error.ts';
import { bind, closeFd, recv, send, setSocketOption, socket } from './libc.ts';
import { withNetns } from './netns.ts';

export const NetlinkFlag = {
  request: 1,
  multi: 2,
  ack: 4,
  dumpInterrupted: 0x10,
  dump: 0x300,
  replace: 0x100,
  excl: 0x200,
  create: 0x400,
  append: 0x800,
} as const;

/** A message as the kernel sent it: type, header flags, and what follows the header. */
export type NetlinkMessage = { type: number; flags: number; payload: Uint8Array };

/** A socket of NETLINK_ROUTE inside one network namespace. */
export type Netlink = {
  readonly fd: number;
  /** Sends a request and waits for its acknowledgement. KernelError carries the kernel's own explanation. */
  request(type: number, flags: number, payload: Uint8Array, what: string): NetlinkMessage[];
  /** Lists everything; asks again when the list changed while it was read. */
  dump(type: number, payload: Uint8Array, what: string): NetlinkMessage[];
  close(): void;
  [Symbol.dispose](): void;
};

const AF_NETLINK = 16;
const SOCK_RAW_CLOEXEC = 3 | 0o2000000;
const NETLINK_ROUTE = 0;
const SOL_NETLINK = 270;
const SOL_SOCKET = 1;
const SO_RCVTIMEO = 20;
const headerBytes = 16;
const answerTimeoutS = 10;
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const NLM_F_CAPPED = 0x100;
const NLM_F_ACK_TLVS = 0x200;
const dumpAttempts = 5;

/** Opens a raw netlink socket; `groups` is the bit mask of multicast groups to hear. */
export function openNetlinkSocket(netnsFd: number | undefined, groups = 0, protocol = NETLINK_ROUTE): number {
  const make = (): number => socket(AF_NETLINK, SOCK_RAW_CLOEXEC, protocol);
  const fd = netnsFd === undefined ? make() : withNetns(netnsFd, make);
  try {
    const address = new Uint8Array(12);
    const view = new DataView(address.buffer);
    view.setUint16(0, AF_NETLINK, true);
    view.setUint32(8, groups, true);
    bind(fd, address);
    return fd;
  } catch (error) {
    closeFd(fd);
    throw error;
  }
}

/** Opens a socket for requests, in the namespace behind `netnsFd` or else the calling thread's. NETLINK_ROUTE unless told. */
export function openNetlink(options: { netnsFd?: number; protocol?: number } = {}): Netlink {
  let fd = openNetlinkSocket(options.netnsFd, 0, options.protocol);
  const one = new Uint8Array([1, 0, 0, 0]);
  setSocketOption(fd, SOL_NETLINK, 10, one); // NETLINK_CAP_ACK: do not echo our request
  setSocketOption(fd, SOL_NETLINK, 11, one); // NETLINK_EXT_ACK: say why
  setSocketOption(fd, SOL_NETLINK, 12, one); // NETLINK_GET_STRICT_CHK: filter dumps in the kernel
  const timeout = new Uint8Array(16);
  timeout[0] = answerTimeoutS;
  setSocketOption(fd, SOL_SOCKET, SO_RCVTIMEO, timeout);
  const buffer = new Uint8Array(256 * 1024);
  let sequence = 0;

  const exchange = (type: number, flags: number, payload: Uint8Array, what: string): NetlinkMessage[] | undefined => {
    if (fd < 0) throw new KernelError('netlink', 9, `${what}: the socket was closed`);
    sequence = (sequence + 1) >>> 0;
    send(fd, encodeMessage(type, flags | NetlinkFlag.request, sequence, payload));
    const messages: NetlinkMessage[] = [];
    let interrupted = false;
    for (;;) {
      const length = recv(fd, buffer);
      if (length === -4) continue; // EINTR
      if (length < 0) throw new KernelError('netlink', length === -11 ? 110 : -length, what);
      for (const message of parseMessages(buffer.subarray(0, length), sequence)) {
        interrupted ||= (message.flags & NetlinkFlag.dumpInterrupted) !== 0;
        if (message.type === NLMSG_ERROR || message.type === NLMSG_DONE) {
          const errno = message.payload.length >= 4 ? -viewOf(message.payload).getInt32(0, true) : 0;
          if (errno !== 0) throw new KernelError('netlink', errno, explain(message, what));
          return interrupted ? undefined : messages;
        }
        messages.push({ ...message, payload: message.payload.slice() });
      }
    }
  };

  const close = (): void => {
    if (fd < 0) return;
    closeFd(fd);
    fd = -1;
  };
  return {
    get fd() {
      return fd;
    },
    request: (type, flags, payload, what) => exchange(type, flags | NetlinkFlag.ack, payload, what) ?? [],
    dump(type, payload, what) {
      for (let attempt = 0; attempt < dumpAttempts; attempt++) {
        const messages = exchange(type, NetlinkFlag.dump, payload, what);
        if (messages) return messages;
      }
      throw new KernelError('netlink', 11, `${what}: the list kept changing while it was read`);
    },
    close,
    [Symbol.dispose]: close,
  };
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A message as it goes over the socket. */
export function encodeMessage(type: number, flags: number, sequence: number, payload: Uint8Array): Uint8Array {
  const message = new Uint8Array(headerBytes + payload.length);
  const view = viewOf(message);
  view.setUint32(0, message.length, true);
  view.setUint16(4, type, true);
  view.setUint16(6, flags, true);
  view.setUint32(8, sequence, true);
  message.set(payload, headerBytes);
  return message;
}

/** The messages in a received datagram; with `sequence`, only the answers to that request. */
export function* parseMessages(datagram: Uint8Array, sequence?: number): Generator<NetlinkMessage> {
  const view = viewOf(datagram);
  for (let at = 0; at + headerBytes <= datagram.length; ) {
    const length = view.getUint32(at, true);
    if (length < headerBytes || at + length > datagram.length) return;
    if (sequence === undefined || view.getUint32(at + 8, true) === sequence) {
      const payload = datagram.subarray(at + headerBytes, at + length);
      yield { type: view.getUint16(at + 4, true), flags: view.getUint16(at + 6, true), payload };
    }
    at += (length + 3) & ~3;
  }
}

/** The kernel's extended acknowledgement, where it gave one. */
function explain(message: NetlinkMessage, what: string): string {
  if ((message.flags & NLM_F_ACK_TLVS) === 0) return what;
  const errorBytes = message.type === NLMSG_DONE ? 4 : 4 + headerBytes;
  // Without NLM_F_CAPPED the request is repeated between the error and the attributes.
  const echoed = message.type === NLMSG_ERROR && (message.flags & NLM_F_CAPPED) === 0;
  const echoedBytes = echoed ? viewOf(message.payload).getUint32(4, true) - headerBytes : 0;
  const attributes = parseAttributes(message.payload, errorBytes + ((echoedBytes + 3) & ~3));
  const text = attributes.get(1);
  return text ? `${what}: ${attributeText(text)}` : what;
}

/** The attributes that follow a fixed header of `start` bytes, by type. Of repeated ones the last counts. */
export function parseAttributes(payload: Uint8Array, start = 0): Map<number, Uint8Array> {
  const attributes = new Map<number, Uint8Array>();
  const view = viewOf(payload);
  for (let at = (start + 3) & ~3; at + 4 <= payload.length; ) {
    const length = view.getUint16(at, true);
    if (length < 4 || at + length > payload.length) break;
    attributes.set(view.getUint16(at + 2, true) & 0x3fff, payload.subarray(at + 4, at + length));
    at += (length + 3) & ~3;
  }
  return attributes;
}

export function attributeText(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
}

export function attributeU32(bytes: Uint8Array | undefined): number | undefined {
  return bytes && bytes.length >= 4 ? viewOf(bytes).getUint32(0, true) : undefined;
}

/** What a datagram answers to a request: 0 or why it was refused; undefined when it does not. */
export function answerErrno(datagram: Uint8Array, sequence: number): number | undefined {
  for (const { type, payload } of parseMessages(datagram, sequence))
    if (type === NLMSG_ERROR && payload.length >= 4) return -viewOf(payload).getInt32(0, true);
  return undefined;
}

/** Builds a request: fixed header first, then attributes. */
export class NetlinkPayload {
  #bytes = new Uint8Array(256);
  #length = 0;

  /** Appends raw bytes of a fixed header. */
  raw(bytes: Uint8Array): this {
    this.#room(bytes.length);
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
    return this;
  }

  attribute(type: number, value: Uint8Array): this {
    const padded = (value.length + 3) & ~3;
    this.#room(4 + padded);
    const view = viewOf(this.#bytes);
    view.setUint16(this.#length, 4 + value.length, true);
    view.setUint16(this.#length + 2, type, true);
    this.#bytes.set(value, this.#length + 4);
    this.#length += 4 + padded;
    return this;
  }

  u32(type: number, value: number): this {
    const bytes = new Uint8Array(4);
    viewOf(bytes).setUint32(0, value, true);
    return this.attribute(type, bytes);
  }

  text(type: number, value: string): this {
    return this.attribute(type, new TextEncoder().encode(`${value}\0`));
  }

  nest(type: number, fill: (inner: NetlinkPayload) => void): this {
    const inner = new NetlinkPayload();
    fill(inner);
    return this.attribute(type, inner.bytes());
  }

  bytes(): Uint8Array {
    return this.#bytes.slice(0, this.#length);
  }

  #room(lenBytes: number): void {
    if (this.#length + lenBytes <= this.#bytes.length) return;
    const larger = new Uint8Array(2 * (this.#bytes.length + lenBytes));
    larger.set(this.#bytes);
    this.#bytes = larger;
  }
}

/** A fixed header from a list of [size, value] fields. */
export function fixedHeader(fields: readonly (readonly [1 | 2 | 4, number])[]): Uint8Array {
  const bytes = new Uint8Array(fields.reduce((sum, [size]) => sum + size, 0));
  const view = viewOf(bytes);
  let at = 0;
  for (const [size, value] of fields) {
    if (size === 1) view.setUint8(at, value);
    else if (size === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value >>> 0, true);
    at += size;
  }
  return bytes;
}
