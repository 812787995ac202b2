// All certificates of a cluster's flows: what there is and still good stays, the rest is made. Two authorities: agents
// let in whom the first one signed, which is the relay; users have certificates of the second one, which only the relay
// trusts, so that nobody reads an agent past the relay.
import { anyAgentName, flowServerName, relayName } from '../../observe/flows/peer-service.ts';
import {
  type CertificateRequest,
  type Credential,
  makeAuthority,
  makeCertificate,
  staleAuthorityReason,
  staleReason,
} from './make-certificate.ts';

/** Where certificates are kept, by name. */
export interface CertificateStore {
  read(name: string): Promise<Credential | undefined>;
  /** `beside` is whom the holder has to trust, by the name of the file. */
  write(name: string, credential: Credential, beside: Readonly<Record<string, string>>): Promise<void>;
}

/** What is wanted. */
export interface IssueOptions {
  /** Nodes that get a certificate of their own, with their addresses; without any, one certificate serves all agents. */
  readonly nodes: readonly { readonly name: string; readonly addresses: readonly string[] }[];
  readonly cluster: string;
  /** Further names and addresses by which clients reach the relay. */
  readonly relayNames: readonly string[];
  readonly clients: readonly { readonly name: string; readonly groups?: readonly string[] }[];
  readonly days: number;
  /** A certificate that ends within so many days is made anew. */
  readonly renewDays: number;
  readonly nowMs?: number;
}

/** What became of a certificate. */
export interface Issued {
  readonly name: string;
  readonly done: 'kept' | 'made' | 'renewed';
  readonly why: string;
}

const authorityDays = 3_650;
const authorityRenewDays = 365;

/** The name that Hubble's own relay expects of a node. */
function hubbleServerName(node: string, cluster: string): string {
  return `${node.replaceAll('.', '-')}.${cluster}.hubble-grpc.cilium.io`;
}

/** Makes what is missing or about to end. Doing it again changes nothing. */
export async function issueCertificates(store: CertificateStore, options: IssueOptions): Promise<Issued[]> {
  const { nodes, cluster, days, renewDays, nowMs = Date.now() } = options;
  const issued: Issued[] = [];

  async function authority(name: string, commonName: string): Promise<Credential> {
    const before = await store.read(name);
    const why = before === undefined ? 'there was none' : staleAuthorityReason(before, authorityRenewDays, nowMs);
    if (before !== undefined && why === undefined) {
      issued.push({ name, done: 'kept', why: '' });
      return before;
    }
    const made = await makeAuthority(commonName, authorityDays, nowMs);
    // Who has a certificate of the old one is still to be trusted until it has a new one.
    const credential = { ...made, cert: made.cert + (before?.cert.match(firstPem)?.[0] ?? '') };
    await store.write(name, credential, {});
    issued.push({ name, done: before === undefined ? 'made' : 'renewed', why: why ?? '' });
    return credential;
  }

  async function certificate(
    name: string,
    request: CertificateRequest,
    signer: Credential,
    beside: Readonly<Record<string, string>>,
  ): Promise<void> {
    const before = await store.read(name);
    const trustIsNew = issued.some((each) => each.name.endsWith('ca') && each.done !== 'kept');
    const why =
      before === undefined
        ? 'there was none'
        : (staleReason(before, request, signer, renewDays, nowMs) ?? (trustIsNew ? 'an authority is new' : undefined));
    if (why === undefined) {
      issued.push({ name, done: 'kept', why: '' });
      return;
    }
    await store.write(name, await makeCertificate(request, signer, days, nowMs), beside);
    issued.push({ name, done: before === undefined ? 'made' : 'renewed', why });
  }

  const agents = await authority('ca', 'Weir flows');
  const users = await authority('client-ca', 'Weir flow clients');
  const servers = nodes.length > 0 ? nodes : [{ name: '*', addresses: [] }];
  for (const { name, addresses } of servers) {
    const names = [flowServerName(name, cluster), hubbleServerName(name, cluster), anyAgentName, ...addresses];
    // No `client`: an agent’s certificate opens no other agent.
    const request = { commonName: names[0]!, names, use: ['server'] as const };
    await certificate(name === '*' ? 'agents' : name, request, agents, { 'ca.crt': agents.cert });
  }
  await certificate(
    'relay',
    {
      commonName: relayName,
      names: [relayName, 'localhost', '127.0.0.1', '::1', ...options.relayNames],
      use: ['server', 'client'],
    },
    agents,
    { 'ca.crt': agents.cert, 'client-ca.crt': users.cert },
  );
  for (const { name, groups } of options.clients)
    await certificate(`client-${name}`, { commonName: name, groups, names: [], use: ['client'] }, users, {
      'ca.crt': agents.cert,
    });
  return issued;
}

const firstPem = /-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----\n/;
