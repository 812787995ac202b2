// The container network interface, versions 0.3.1 to 1.1.0: what the runtime asks and what it is answered.
// https://www.cni.dev/docs/spec/. Pure: parsing and formatting only.
import { z } from 'zod';
import { gateways } from './link-addresses.ts';

/** The versions that are spoken, oldest first. */
export const cniVersions = ['0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const;
export type CniVersion = (typeof cniVersions)[number];

/** Error codes of the specification; from 100 on they are a plugin's own. */
export const cniCodes = {
  incompatibleVersion: 1,
  unsupportedField: 2,
  unknownContainer: 3,
  invalidEnvironment: 4,
  ioFailure: 5,
  decodeFailure: 6,
  invalidConfig: 7,
  tryAgain: 11,
  notAvailable: 50,
  addressesExhausted: 101,
  podUnknown: 102,
  kernel: 103,
} as const;

/** A refusal in the runtime's own format. */
export class CniError extends Error {
  readonly code: number;
  readonly details: string;
  constructor(code: number, message: string, details = '') {
    super(message);
    this.name = 'CniError';
    this.code = code;
    this.details = details;
  }
}

/** What the plugin passes on from its environment. */
export interface CniEnvironment {
  readonly command: string;
  readonly containerId?: string;
  readonly netns?: string;
  readonly ifname?: string;
  readonly args?: string;
}

/** Who the pod is, as the runtime says in CNI_ARGS. */
export interface CniPod {
  readonly namespace: string;
  readonly name: string;
  readonly uid?: string;
}

const interfaceSchema = z.looseObject({
  name: z.string(),
  mac: z.string().optional(),
  mtu: z.number().optional(),
  sandbox: z.string().optional(),
});
const resultSchema = z.looseObject({
  cniVersion: z.string().optional(),
  interfaces: z.array(interfaceSchema).optional(),
  ips: z
    .array(
      z.looseObject({
        address: z.string(),
        gateway: z.string().optional(),
        interface: z.number().optional(),
        version: z.string().optional(),
      }),
    )
    .optional(),
  routes: z.array(z.looseObject({ dst: z.string(), gw: z.string().optional() })).optional(),
  dns: z.unknown().optional(),
});
const configSchema = z.looseObject({
  cniVersion: z.string().default('0.3.1'),
  name: z.string().min(1),
  type: z.string().min(1),
  mtu: z.int().min(576).max(65_535).optional(),
  prevResult: resultSchema.nullish(),
  'cni.dev/valid-attachments': z.array(z.object({ containerID: z.string(), ifname: z.string() })).nullish(),
});

export type CniResult = z.infer<typeof resultSchema>;
export type CniConfig = z.infer<typeof configSchema> & { cniVersion: CniVersion };

/** A request after checking. */
export interface CniRequest {
  readonly command: 'ADD' | 'DEL' | 'CHECK' | 'GC' | 'STATUS' | 'VERSION';
  readonly config: CniConfig;
  readonly containerId: string;
  readonly ifname: string;
  readonly netns: string;
  readonly pod?: CniPod;
}

const commands = ['ADD', 'DEL', 'CHECK', 'GC', 'STATUS', 'VERSION'] as const;
const containerIdPattern = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,199}$/;

/** Checks a request as the specification says, or throws CniError. */
export function parseCniRequest(env: CniEnvironment, body: string): CniRequest {
  const command = commands.find((each) => each === env.command);
  if (command === undefined)
    throw new CniError(
      cniCodes.invalidEnvironment,
      `CNI_COMMAND is "${env.command}"`,
      `Known are ${commands.join(', ')}`,
    );
  let json: unknown;
  try {
    json = JSON.parse(body);
  } catch (error) {
    throw new CniError(cniCodes.decodeFailure, 'the network configuration is not JSON', (error as Error).message);
  }
  const parsed = configSchema.safeParse(json);
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    throw new CniError(
      cniCodes.invalidConfig,
      `the network configuration is wrong at "${issue.path.join('.')}"`,
      issue.message,
    );
  }
  const version = cniVersions.find((each) => each === parsed.data.cniVersion);
  if (version === undefined)
    throw new CniError(
      cniCodes.incompatibleVersion,
      `cniVersion ${parsed.data.cniVersion} is not supported`,
      `Supported are ${cniVersions.join(', ')}`,
    );
  const config: CniConfig = { ...parsed.data, cniVersion: version };
  if ((command === 'GC' || command === 'STATUS') && version !== '1.1.0')
    throw new CniError(
      cniCodes.incompatibleVersion,
      `${command} needs cniVersion 1.1.0`,
      `The configuration says ${version}`,
    );
  const needsContainer = command === 'ADD' || command === 'DEL' || command === 'CHECK';
  if (needsContainer) {
    if (env.containerId === undefined || !containerIdPattern.test(env.containerId))
      throw new CniError(cniCodes.invalidEnvironment, 'CNI_CONTAINERID is missing or malformed', env.containerId ?? '');
    const problem = ifnameProblem(env.ifname);
    if (problem !== undefined)
      throw new CniError(cniCodes.invalidEnvironment, `CNI_IFNAME ${problem}`, env.ifname ?? '');
    if (command !== 'DEL' && !env.netns) throw new CniError(cniCodes.invalidEnvironment, 'CNI_NETNS is missing', '');
  }
  return {
    command,
    config,
    containerId: env.containerId ?? '',
    ifname: env.ifname ?? '',
    netns: env.netns ?? '',
    pod: parsePod(env.args),
  };
}

function ifnameProblem(name: string | undefined): string | undefined {
  if (name === undefined || name === '') return 'is missing';
  if (name.length > 15) return 'is longer than 15 characters';
  if (name === '.' || name === '..' || /[\s/:]/.test(name)) return 'has a character that interface names cannot have';
  return undefined;
}

function parsePod(args: string | undefined): CniPod | undefined {
  const values = new Map<string, string>();
  for (const pair of (args ?? '').split(';')) {
    const at = pair.indexOf('=');
    if (at > 0) values.set(pair.slice(0, at), pair.slice(at + 1));
  }
  const namespace = values.get('K8S_POD_NAMESPACE');
  const name = values.get('K8S_POD_NAME');
  if (!namespace || !name) return undefined;
  return { namespace, name, uid: values.get('K8S_POD_UID') };
}

/** What ADD made. */
export interface Attachment {
  readonly hostInterface: string;
  readonly hostMac: string;
  readonly ifname: string;
  readonly mac: string;
  readonly netns: string;
  readonly mtu: number;
  readonly ipv4?: string;
  readonly ipv6?: string;
}

/** The result of ADD in the version that the configuration asks for. What a plugin before us did is kept in front. */
export function formatResult(config: CniConfig, made: Attachment): CniResult {
  const before = config.prevResult ?? undefined;
  const old = config.cniVersion === '0.3.1' || config.cniVersion === '0.4.0';
  const index = (before?.interfaces?.length ?? 0) + 1;
  const ips: NonNullable<CniResult['ips']> = [];
  const routes: NonNullable<CniResult['routes']> = [];
  if (made.ipv4 !== undefined) {
    ips.push({
      ...(old ? { version: '4' } : {}),
      address: `${made.ipv4}/32`,
      gateway: gateways.ipv4,
      interface: index,
    });
    routes.push({ dst: '0.0.0.0/0', gw: gateways.ipv4 });
  }
  if (made.ipv6 !== undefined) {
    ips.push({
      ...(old ? { version: '6' } : {}),
      address: `${made.ipv6}/128`,
      gateway: gateways.ipv6,
      interface: index,
    });
    routes.push({ dst: '::/0', gw: gateways.ipv6 });
  }
  const mtu = config.cniVersion === '1.1.0' ? { mtu: made.mtu } : {};
  return {
    cniVersion: config.cniVersion,
    interfaces: [
      ...(before?.interfaces ?? []),
      { name: made.hostInterface, mac: made.hostMac, ...mtu },
      { name: made.ifname, mac: made.mac, ...mtu, sandbox: made.netns },
    ],
    ips: [...(before?.ips ?? []), ...ips],
    routes: [...(before?.routes ?? []), ...routes],
    dns: before?.dns ?? {},
  };
}

/** An error in the runtime's format. */
export function formatCniError(
  version: string,
  error: unknown,
): { cniVersion: string; code: number; msg: string; details: string } {
  const known = error instanceof CniError ? error : undefined;
  return {
    cniVersion: version,
    code: known?.code ?? cniCodes.ioFailure,
    msg: known?.message ?? (error as Error).message,
    details: known?.details ?? '',
  };
}
