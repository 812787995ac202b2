// `weir service why`: the question to the nodes, and their answers in words.
import { WeirError } from '../../core/errors.ts';
import { canonicalIp } from '../../core/ip.ts';
import type { WhyView } from '../agent/services-view.ts';
import { askNodes } from './ask-nodes.ts';
import { printValue } from './output.ts';
import type { QueryOptions } from './query-command.ts';
import { endpointText, whereText } from './service-detail.ts';

/** Prints the answer of the node where the client is; of every asked node when it is outside. */
export async function explainPick(client: string, frontend: string, options: QueryOptions): Promise<void> {
  const query = new URLSearchParams();
  const from = parseEnd(client);
  const to = parseEnd(frontend);
  if (to.port === undefined) throw new WeirError('CONFIG_INVALID', `${frontend} has no port`, 'Write ADDRESS:PORT.');
  query.set('client', from.address);
  if (from.port !== undefined) query.set('clientPort', from.port);
  query.set('address', to.address);
  query.set('port', to.port);
  query.set('protocol', to.protocol ?? 'tcp');
  const answers = await askNodes<WhyView>(options, `/v1/service-why?${query}`);
  const all = answers.flatMap((answer) => answer.value ?? []);
  const here = all.filter((each) => each.seen !== 'elsewhere');
  const shown = here.length > 0 ? here : all;
  if (options.output !== 'table') return printValue(shown.length === 1 ? shown[0] : shown, options);
  for (const each of shown) process.stdout.write(`${each.node}: ${whyText(each, from.port !== undefined)}\n`);
}

/** ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT, with /PROTOCOL. Throws CONFIG_INVALID. */
export function parseEnd(text: string): { address: string; port?: string; protocol?: string } {
  const [, end = text, protocol] = /^(.*)\/([a-zA-Z]+)$/.exec(text) ?? [];
  const [, bracketed, bracketedPort] = /^\[([^\]]*)\](?::(\d+))?$/.exec(end) ?? [];
  const [, plain, plainPort] = /^([^:]*):(\d+)$/.exec(end) ?? [];
  const address = canonicalIp(bracketed ?? plain ?? end);
  if (address === undefined || address.includes('/'))
    throw new WeirError('CONFIG_INVALID', `${text} is not an address`, 'Write 10.0.0.1:80, or [fd00::1]:80.');
  const port = bracketedPort ?? plainPort;
  return { address, ...(port === undefined ? {} : { port }), ...(protocol === undefined ? {} : { protocol }) };
}

/** One node's answer in a sentence. */
export function whyText(why: WhyView, portGiven: boolean): string {
  const target = `${endpointText(why.address, why.port)}/${why.protocol.toLowerCase()}`;
  if (why.seen === 'elsewhere') return `${why.client} is on node ${why.elsewhere}: ask it with --node`;
  if (why.frontend === undefined) return `${target} is no frontend here: the connection goes where the address is`;
  const service = `${why.frontend.service} (${why.frontend.kind})`;
  if (why.admitted === false && why.seen === 'packet')
    return `${target} is ${service}, and its source ranges do not let ${why.client} in: dropped`;
  const to = why.backend && `${endpointText(why.backend.address, why.backend.port)} (${whereText(why.backend)})`;
  const source = `source port ${why.clientPort}${portGiven ? '' : ' (assumed)'}`;
  switch (why.reason) {
    case 'affinity':
      return `${target} is ${service} → ${to}: it served this client before, and its affinity holds`;
    case 'known connection':
      return `${target} is ${service} → ${to}: the connection from ${source} is there already and keeps its backend`;
    case 'maglev':
      return `${target} is ${service} → ${to}: by the Maglev table, from ${source}`;
    case 'random':
      if (to !== undefined) return `${target} is ${service} → ${to}: chosen by the hash of the client, from ${source}`;
      return `${target} is ${service} → one of ${(why.candidates ?? [])
        .map((each) => endpointText(each.address, each.port))
        .join(', ')}: each connection rolls the dice`;
    default:
      return `${target} is ${service}, and nobody serves it: the client is refused`;
  }
}
