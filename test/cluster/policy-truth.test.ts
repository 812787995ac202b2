// All of NetworkPolicy's truth table, and policies of all kinds together, on real packets: every case is applied with the API server, enforced by
// agents on two nodes, and tried with real connections in both families; what the pure evaluator says must come true.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { addPod, deletePod, type LabPod, podCommand } from '../../lab/lab.ts';
import { evaluate } from '../../src/secure/policy/evaluate.ts';
import { caseWorld, generateCases, type PolicyCase } from '../../src/secure/policy/scenarios/generate-cases.ts';
import { mixedCases } from '../../src/secure/policy/scenarios/mixed-cases.ts';
import {
  type Addresses,
  describeProbe,
  type End,
  probeConnection,
  scenarioManifests,
  scenarioModel,
} from '../../src/secure/policy/scenarios/scenario.ts';
import { ensureProber, type Prober, startProber } from './prober.ts';
import { nodeNames, type SharedLab, sharedLab, waitFor } from './shared-lab.ts';

const skip = process.getuid?.() === 0 ? false : 'needs root';
const cases = generateCases();
/** Sets of policies of all kinds; a run at night may have many more. */
const mixed = mixedCases(Number(process.env.WEIR_MIXED_PACKET_CASES ?? 300));
/** Cases per test: the report stays readable, and a failure names its case anyway. */
const perTest = 54;
/** Denied packets are dropped, so silence is the answer; on one machine an answer takes well under this. */
const silenceMs = 250;

describe('policies on real packets', { skip }, () => {
  let lab: SharedLab;
  const pods = new Map<End, LabPod>();
  const probers = new Map<End, Prober>();
  let nodeAddresses: (readonly string[])[] = [];

  before(async () => {
    lab = await sharedLab();
    await lab.apply(
      Object.entries(caseWorld.namespaces).map(([name, labels]) => ({
        apiVersion: 'v1',
        kind: 'Namespace',
        metadata: { name, labels },
      })),
    );
    const { nodes } = await lab.status();
    nodeAddresses = nodeNames.bare.map((name) => nodes.find((node) => node.name === name)!.addresses);
    const binary = ensureProber();
    for (const [end, pod] of Object.entries(caseWorld.pods)) {
      const [namespace = '', name = ''] = end.split('/');
      const made = await addPod(lab.record, lab.api, {
        node: nodeNames.bare[(pod.node ?? 1) - 1]!,
        name,
        namespace,
        labels: { ...pod.labels },
        ports: (pod.ports ?? []).map((port) => ({
          name: port.name,
          protocol: port.protocol,
          containerPort: port.port,
        })),
      });
      pods.set(end, made);
      probers.set(end, await startProber(podCommand(lab.record, made, [binary, '80', '81', '82'])));
    }
    await waitFor(
      'every node to know every pod',
      async () => {
        for (const node of nodeNames.bare) {
          const known = await lab.agent<{ pod?: string; namespace?: string }[]>(node, '/v1/addresses');
          if (
            [...pods.values()].some(
              (pod) => !known.some((row) => row.pod === pod.name && row.namespace === pod.namespace),
            )
          )
            return undefined;
        }
        return true;
      },
      20_000,
    );
  });
  after(async () => {
    for (const prober of probers.values()) prober.close();
    if (lab === undefined) return;
    for (const pod of pods.values()) await deletePod(lab.record, lab.api, pod);
    await lab.kubectl(['delete', 'namespace', ...Object.keys(caseWorld.namespaces), '--wait=false']);
  });

  function addressesOf(family: 4 | 6): Addresses {
    const others: Record<End, readonly string[]> = {
      host: nodeAddresses[0]!,
      'remote-node': nodeAddresses[1]!,
      world: ['198.51.100.1', '2001:db8:100::1'],
    };
    return (end) => {
      const own = pods.get(end)?.addresses ?? others[end];
      if (own === undefined) throw new Error(`no pod ${end}`);
      return own.find((address) => address.includes(':') === (family === 6))!;
    };
  }

  /** Blocks of policies in both families at once: every address of a manifest is written once for each. */
  function manifests(policyCase: PolicyCase): Record<string, unknown>[] {
    const [four, six] = [scenarioManifests(policyCase, addressesOf(4)), scenarioManifests(policyCase, addressesOf(6))];
    return four.map((manifest, i) => bothFamilies(manifest, six[i]!) as Record<string, unknown>);
  }

  let applied: string[] = [];
  async function enforce(objects: Record<string, unknown>[]): Promise<void> {
    await Promise.all(applied.map((path) => lab.api.delete(path)));
    const made = await Promise.all(
      objects.map(async (object) => {
        const { namespace, name } = object.metadata as { namespace?: string; name: string };
        const path = collectionPath(String(object.kind), namespace);
        const answer = await lab.api.create(path, object as Parameters<typeof lab.api.create>[1]);
        return { path: `${path}/${name}`, uid: String(answer.metadata.uid) };
      }),
    );
    applied = made.map(({ path }) => path);
    const uids = new Set(made.map(({ uid }) => uid));
    await waitFor(
      'both agents to have these policies and no others',
      async () => {
        for (const node of nodeNames.bare) {
          const rows = await lab.agent<{ name: string; uid: string; namespace: string }[]>(node, '/v1/policies');
          const own = rows.filter((row) => row.namespace in caseWorld.namespaces || row.name.startsWith('mixed-'));
          if (own.length !== uids.size || !own.every((row) => uids.has(row.uid))) return undefined;
          const { pending } = await lab.agent<{ pending: boolean }>(node, '/v1/sync');
          if (pending) return undefined;
        }
        return true;
      },
      10_000,
    );
  }

  async function tryCase(policyCase: PolicyCase): Promise<string[]> {
    const objects = manifests(policyCase);
    await enforce(objects);
    const wrong: string[] = [];
    const attempts = ([4, 6] as const).flatMap((family) => {
      const addresses = addressesOf(family);
      const model = scenarioModel({ ...caseWorld, policies: objects as PolicyCase['policies'] }, (end) =>
        pods.has(end) ? addresses(end) : family === 4 ? '192.0.2.1' : '2001:db8::1',
      );
      return policyCase.probes
        .filter(
          (probe) =>
            pods.has(probe.from) &&
            pods.has(probe.to) &&
            probe.from !== probe.to &&
            (probe.protocol ?? 'TCP') !== 'SCTP' &&
            probe.protocol !== 'ICMP',
        )
        .map(async (probe) => {
          const connection = probeConnection(probe, addresses);
          const { egress, ingress } = evaluate(model, connection);
          const expected = egress.allowed && ingress.allowed;
          const outcome = await probers
            .get(probe.from)!
            .probe(connection.protocol === 17 ? 'udp' : 'tcp', connection.destination, connection.port, silenceMs);
          if ((outcome === 'ok') !== expected)
            wrong.push(
              `${policyCase.name}: ${describeProbe(probe)} IPv${family}: ${outcome}, expected ${expected ? 'allowed' : 'denied'}`,
            );
        });
    });
    await Promise.all(attempts);
    return wrong;
  }

  for (const [what, all] of [
    ['cases', cases],
    ['mixed cases', mixed],
  ] as const) {
    for (let first = 0; first < all.length; first += perTest) {
      const some = all.slice(first, first + perTest);
      test(`${what} ${first + 1} to ${first + some.length} come true`, async () => {
        const wrong: string[] = [];
        for (const each of some) wrong.push(...(await tryCase(each)));
        assert.deepEqual(wrong, []);
      });
    }
  }
});

const collections: Readonly<Record<string, string>> = {
  NetworkPolicy: 'networking.k8s.io/v1/networkpolicies',
  CiliumNetworkPolicy: 'cilium.io/v2/ciliumnetworkpolicies',
  CiliumClusterwideNetworkPolicy: 'cilium.io/v2/ciliumclusterwidenetworkpolicies',
  ClusterNetworkPolicy: 'policy.networking.k8s.io/v1alpha2/clusternetworkpolicies',
};

function collectionPath(kind: string, namespace: string | undefined): string {
  const [group, version, plural] = collections[kind]!.split('/');
  return `/apis/${group}/${version}/${namespace === undefined ? '' : `namespaces/${namespace}/`}${plural}`;
}

/** Lists of peers get the blocks of both families; everything else is the same in both. */
function bothFamilies(four: unknown, six: unknown): unknown {
  if (JSON.stringify(four) === JSON.stringify(six)) return four;
  if (Array.isArray(four) && Array.isArray(six)) {
    return four.flatMap((each, i) => {
      const other = six[i];
      const differ = JSON.stringify(each) !== JSON.stringify(other);
      const isBlock =
        differ &&
        (typeof each === 'string' ||
          (typeof each === 'object' && each !== null && ('ipBlock' in each || 'cidr' in each)));
      return isBlock ? [each, other] : [bothFamilies(each, other)];
    });
  }
  if (typeof four === 'object' && four !== null && typeof six === 'object' && six !== null) {
    const other = six as Record<string, unknown>;
    return Object.fromEntries(Object.entries(four).map(([key, value]) => [key, bothFamilies(value, other[key])]));
  }
  return four;
}
