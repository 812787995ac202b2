// Values of filters as predicates on what they are about, so that the same filter says the same of a row and of a message.
import { type Cidr, cidrContains, hostCidr, type Parsed, parseAddress, parseCidr } from '../../core/ip.ts';
import { compilePattern, compileWildcard, type TextMatch } from './safe-pattern.ts';

/** What is wrong with a filter, beginning with the field's name. */
export class FilterError extends Error {}

/** The cluster that all flows are of, and whose namespaces rights speak of. */
export const clusterName = 'default';

/** An address, or a block of them. */
export function addressMatch(name: string, text: string): (address: string) => boolean {
  const cidr = text.includes('/') ? parseCidr(text) : oneAddress(text);
  if (!cidr.ok) throw new FilterError(`${name}: ${cidr.reason}`);
  return (address) => {
    const parsed = parseAddress(address);
    return parsed.ok && cidrContains(cidr.value, parsed.value);
  };
}

function oneAddress(text: string): Parsed<Cidr> {
  const address = parseAddress(text);
  return address.ok ? { ok: true, value: hostCidr(address.value) } : address;
}

/** `ns/prefix`, `ns/` for all of a namespace, `/prefix` in every namespace, `prefix` in namespace default. */
export function objectMatch(text: string): (namespace: string, name: string) => boolean {
  const slash = text.indexOf('/');
  const wanted = slash < 0 ? 'default' : text.slice(0, slash);
  const prefix = text.slice(slash + 1);
  return (namespace, name) => name !== '' && (wanted === '' || namespace === wanted) && name.startsWith(prefix);
}

/** A port, or a range of them. */
export function portRangeMatch(name: string, text: string): (port: number) => boolean {
  const range = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text);
  const first = Number(range?.[1]);
  const last = Number(range?.[2] ?? range?.[1]);
  if (range === null || first > last || last > 65_535)
    throw new FilterError(`${name}: ${JSON.stringify(text)} is not a port, such as 80 or 8000-8999`);
  return (port) => port >= first && port <= last;
}

/** `node`, `cluster/node`, `cluster/`, with `*` for any characters. */
export function nodeNameMatch(text: string): TextMatch {
  const slash = text.indexOf('/');
  const cluster = slash < 0 ? '*' : text.slice(0, slash) || '*';
  const inCluster = wildcard('node_name', cluster)(clusterName);
  const matches = wildcard('node_name', text.slice(slash + 1) || '*');
  return (node) => inCluster && matches(node);
}

/** A DNS name, `*` for any characters; the final dot may be left out. */
export function dnsNameMatch(name: string, text: string): TextMatch {
  const plain = (each: string) => each.toLowerCase().replace(/\.$/, '');
  const matches = wildcard(name, plain(text));
  return (each) => matches(plain(each));
}

/** `404`, `40+`, `5+`. */
export function httpStatusMatch(text: string): (status: number) => boolean {
  if (!/^[1-5](?:\d\d|\d?\+)$/.test(text))
    throw new FilterError(`http_status_code: ${JSON.stringify(text)} is no status, such as 404, 40+ or 5+`);
  const prefix = text.replace('+', '');
  return (status) => (text.endsWith('+') ? String(status).startsWith(prefix) : String(status) === text);
}

/** A regular expression of RE2. */
export function pattern(name: string, text: string): TextMatch {
  const compiled = compilePattern(text);
  if (!compiled.ok) throw new FilterError(`${name}: ${compiled.reason}`);
  return compiled.value;
}

function wildcard(name: string, text: string): TextMatch {
  const compiled = compileWildcard(text);
  if (compiled === undefined) throw new FilterError(`${name}: is longer than 512 characters`);
  return compiled;
}
