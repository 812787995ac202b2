// What each example of a corpus of real policies means, one line per connection: `from -> to port: outcome`. Whoever reads
// this can hold it against the policy beside it. Ends are written as `weir policy why` takes them.
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parseAllDocuments } from 'yaml';
import { reservedIdentities, reservedIdentityRows } from '../src/core/identity.ts';
import type { PolicyServiceRow } from '../src/core/rows.ts';
import { evaluateParties, type PolicyModel } from '../src/secure/policy/evaluate.ts';
import { isPolicyKind, parsePolicy } from '../src/secure/policy/parse-policy.ts';
import { findEnds, parseService } from '../src/secure/policy/parties.ts';
import { type PolicyContext, resolvePolicy } from '../src/secure/policy/resolve-policy.ts';

interface Example {
  /** `from -> to port: allowed | egress denied | ingress denied` */
  readonly effects: readonly string[];
  /** The places of rules that are not enforced yet: they isolate, and allow nothing. */
  readonly unenforced?: readonly string[];
  /** What is wrong with it. Then it isolates whom it selects, and allows nothing. */
  readonly problem?: RegExp;
}

const dns = 'k8s-app=kube-dns@kube-system';

const examples: Readonly<Record<string, Example>> = {
  'auth/auth.yaml': {
    // The field is not of the API: kubectl refuses it, too.
    problem: /spec\.egress\[0\]\.auth is not a field here/,
    effects: ['run=ssh-client -> run=sshd 22: egress denied', 'run=other -> run=sshd 22: allowed'],
  },
  'getting-started/cilium_dkr_demo_l3-l4-policy-170817.yaml': {
    effects: [
      'id=app2 -> id=app1 80: allowed',
      'id=app2 -> id=app1 443: ingress denied',
      'id=app2@other -> id=app1 80: ingress denied',
      'world -> id=app1 80: ingress denied',
    ],
  },
  'getting-started/kafka.yaml': {
    unenforced: ['spec.ingress[0].toPorts[0].rules'],
    effects: ['app=empire-outpost -> app=kafka 9092: ingress denied', 'app=x -> app=kafka 80: ingress denied'],
  },
  'getting-started/l3-l4-policy.yaml': {
    effects: [
      'id=goodclient -> id=web-server 8181: allowed',
      'id=goodclient -> id=web-server 8181/udp: ingress denied',
      'id=badclient -> id=web-server 8181: ingress denied',
    ],
  },
  'host/allow-extended-protocols.yaml': {
    effects: [
      'host -> world 443: allowed',
      'host -> world 80: egress denied',
      'host -> world vrrp: allowed',
      'host -> world gre: egress denied',
      'world -> host 22: allowed',
    ],
  },
  'host/demo-host-policy.yaml': {
    effects: [
      'app=x -> host 9100: allowed',
      'remote-node -> host 9100: allowed',
      'world -> host 22: allowed',
      'world -> host 80: ingress denied',
      'world -> host icmp: allowed',
      'world -> host icmp/13: ingress denied',
      'host -> world 80: allowed',
    ],
  },
  'host/lock-down-gke.yaml': {
    effects: [
      'remote-node -> host 1: allowed',
      'world -> host 22: allowed',
      'world -> host 3389: allowed',
      'world -> host 10250: ingress denied',
      'k8s-app=metrics-server@kube-system -> host 10255: allowed',
      'k8s-app=metrics-server@kube-system -> host 22: ingress denied',
      'k8s-app=metrics-server -> host 10255: ingress denied',
    ],
  },
  'host/lock-down-ingress.yaml': {
    effects: [
      'remote-node -> host 9999: allowed',
      'health -> host 9999: allowed',
      'world -> host 6443: allowed',
      'world -> host 8472/udp: allowed',
      'world -> host 8472: ingress denied',
      'app=x -> host 22: allowed',
      'app=x -> host 23: ingress denied',
    ],
  },
  'kubernetes/clustermesh/cross-cluster-policy.yaml': {
    effects: [
      'name=x-wing,io.cilium.k8s.policy.cluster=cluster1 -> name=rebel-base,io.cilium.k8s.policy.cluster=cluster2 80: allowed',
      'name=x-wing,io.cilium.k8s.policy.cluster=cluster1 -> name=rebel-base,io.cilium.k8s.policy.cluster=cluster1 80: egress denied',
      'name=x-wing,io.cilium.k8s.policy.cluster=cluster2 -> world 80: allowed',
    ],
  },
  'kubernetes/clusterwide/clusterscope-policy.yaml': {
    effects: [
      'name=luke@ns2 -> name=leia@ns1 80: allowed',
      'name=vader@ns1 -> name=leia@ns1 80: ingress denied',
      'world -> name=leia@ns1 80: ingress denied',
      'host -> name=leia@ns1 80: allowed',
    ],
  },
  'kubernetes/clusterwide/wildcard-from-endpoints.yaml': {
    effects: [
      `app=x@anywhere -> ${dns} 53/udp: allowed`,
      `app=x -> ${dns} 53/tcp: ingress denied`,
      `world -> ${dns} 53/udp: ingress denied`,
      `remote-node -> ${dns} 53/udp: ingress denied`,
      'world -> k8s-app=kube-dns@other 53/udp: allowed',
    ],
  },
  'kubernetes/namespace/kubedns-policy.yaml': {
    effects: [
      `app=x@public -> ${dns} 53/udp: allowed`,
      `app=x@public -> ${dns} 53/tcp: egress denied`,
      'app=x@public -> world 53/udp: egress denied',
      `app=x@private -> world 80: allowed`,
    ],
  },
  'kubernetes/namespace/namespace-labels-policy.yaml': {
    effects: [
      'app=x@allies -> name=rebel-base 80: allowed',
      'app=x@empire -> name=rebel-base 80: ingress denied',
      'name=rebel-base -> app=x@allies 80: allowed',
      'name=rebel-base -> app=x@empire 80: egress denied',
      'name=rebel-base -> app=x@unknown 80: egress denied',
    ],
  },
  'kubernetes/serviceaccount/serviceaccount-policy.yaml': {
    unenforced: ['spec.ingress[0].toPorts[0].rules'],
    effects: [
      'io.cilium.k8s.policy.serviceaccount=luke -> io.cilium.k8s.policy.serviceaccount=leia 80: ingress denied',
      'io.cilium.k8s.policy.serviceaccount=luke -> io.cilium.k8s.policy.serviceaccount=vader 80: allowed',
    ],
  },
  'l3/egress-allow-all/egress-allow-all.yaml': {
    // Endpoints of the policy's own namespace, and nobody else.
    effects: [
      'role=frontend -> app=x 80: allowed',
      'role=frontend -> app=x@other 80: egress denied',
      'role=frontend -> world 80: egress denied',
    ],
  },
  'l3/egress-default-deny/egress-default-deny.yaml': {
    effects: [
      'role=restricted -> app=x 80: egress denied',
      'role=restricted -> world 443: egress denied',
      'app=x -> role=restricted 80: allowed',
    ],
  },
  'l3/entities/apiserver.yaml': {
    effects: [
      'env=dev -> kube-apiserver 6443: allowed',
      'env=dev -> 192.168.0.2 6443: allowed',
      'env=dev -> 192.168.0.3 6443: egress denied',
      'env=dev -> world 443: egress denied',
    ],
  },
  'l3/entities/customnodes.yaml': {
    effects: [
      '192.168.0.2 -> env=prod 80: allowed',
      '192.168.0.3 -> env=prod 80: ingress denied',
      'app=x -> env=prod 80: ingress denied',
    ],
  },
  'l3/entities/host.yaml': {
    effects: [
      'env=dev -> host 80: allowed',
      'env=dev -> remote-node 80: egress denied',
      'env=dev -> env=dev 80: egress denied',
    ],
  },
  'l3/entities/nodes.yaml': {
    effects: [
      'host -> env=dev 80: allowed',
      'remote-node -> env=dev 80: allowed',
      'app=x -> env=dev 80: ingress denied',
    ],
  },
  'l3/fqdn/fqdn.yaml': {
    unenforced: ['spec.egress[0].toPorts[0].rules', 'spec.egress[1].toFQDNs'],
    effects: [`app=test-app -> ${dns} 53/udp: egress denied`, 'app=test-app -> world 443: egress denied'],
  },
  'l3/ingress-allow-all/ingress-allow-all.yaml': {
    effects: [
      'app=x -> role=victim 80: allowed',
      'app=x@other -> role=victim 80: ingress denied',
      'world -> role=victim 80: ingress denied',
    ],
  },
  'l3/match-expressions/or-statement.yaml': {
    effects: [
      'app=x@production -> app=y 80: allowed',
      'cilium.example.com/policy=strict -> app=y 80: allowed',
      'cilium.example.com/policy=strict@other -> app=y 80: ingress denied',
      'app=x -> app=y 80: ingress denied',
    ],
  },
  'l3/requires/endpoints.yaml': {
    effects: ['role=frontend -> env=prod 80: allowed', 'role=backend -> env=prod 80: ingress denied'],
  },
  'l3/service/service.yaml': {
    effects: [
      'id=app2 -> app=mine 80: allowed',
      'id=app2 -> app=mine@another-namespace 80: egress denied',
      'id=app2 -> app=staged@another-namespace 80: allowed',
      'id=app2 -> world 80: egress denied',
    ],
  },
  'l3/simple/l3.yaml': {
    effects: [
      'role=frontend -> role=backend 80: allowed',
      'role=frontend -> role=backend icmp: allowed',
      'role=other -> role=backend 80: ingress denied',
      'role=backend -> role=frontend 80: allowed',
    ],
  },
  'l4/cidr_l4_combined.yaml': {
    effects: [
      'role=crawler -> 192.0.2.7 80: allowed',
      'role=crawler -> 192.0.2.7 443: egress denied',
      'role=crawler -> 192.0.3.7 80: egress denied',
    ],
  },
  'l4/from_init.yaml': {
    effects: [
      'init -> app=myService 80: allowed',
      'app=x -> app=myService 53/udp: allowed',
      'app=x -> app=myService 53: ingress denied',
    ],
  },
  'l4/init.yaml': {
    // A pod whose labels are not known yet is closed: this policy selects nobody.
    effects: ['app=x -> app=y 80: allowed'],
  },
  'l4/l3_l4_combined.yaml': {
    effects: [
      'role=frontend -> role=backend 80: allowed',
      'role=frontend -> role=backend 81: ingress denied',
      'role=x -> role=backend 80: ingress denied',
    ],
  },
  'l4/l4_port_range.yaml': {
    effects: [
      'app=myService -> world 80: allowed',
      'app=myService -> app=x 444: allowed',
      'app=myService -> world 445: egress denied',
      'app=myService -> world 100/udp: egress denied',
    ],
  },
  'l4/l4_sni.yaml': {
    unenforced: ['spec.egress[0].toPorts[0].serverNames'],
    effects: ['app=myService -> world 443: egress denied'],
  },
  'l7/dns/dns-upgrade.yaml': {
    unenforced: ['spec.egress[0].toPorts[0].rules', 'spec.egress[1].toFQDNs'],
    effects: [`org=alliance -> ${dns} 53/udp: egress denied`, 'org=alliance -> world 443: egress denied'],
  },
  'l7/dns/dns-visibility.yaml': {
    unenforced: ['spec.egress[0].toPorts[0].rules', 'spec.egress[1].toFQDNs'],
    effects: ['org=alliance -> world 443: egress denied'],
  },
  'l7/http/http.yaml': {
    unenforced: ['spec.ingress[0].toPorts[0].rules'],
    effects: ['app=x -> app=myService 80: ingress denied'],
  },
  'l7/http/l7_multi.yaml': {
    unenforced: ['specs[0].ingress[0].toPorts[0].rules', 'specs[1].egress[0].toPorts[0].rules'],
    effects: ['app=x -> app=service 80: ingress denied', 'env=prod -> app=x 80: egress denied'],
  },
  'l7/kafka/kafka-role.yaml': {
    unenforced: ['spec.ingress[0].toPorts[0].rules'],
    effects: ['app=empire-hq -> app=kafka 9092: ingress denied'],
  },
  'l7/kafka/kafka.yaml': {
    unenforced: ['spec.ingress[0].toPorts[0].rules'],
    effects: ['app=empire-hq -> app=kafka 9092: ingress denied'],
  },
};

const node = (name: string, address: string, labels: Record<string, string>) => ({
  name,
  addresses: [address],
  labels,
});
const nodes = [
  node('node1', '192.168.0.1', { type: 'ingress-worker', 'node-access': 'ssh' }),
  node('node2', '192.168.0.2', { 'node-role.kubernetes.io/control-plane': '' }),
  node('node3', '192.168.0.3', { type: 'worker' }),
];
const service = (namespace: string, name: string, app: string, labels = {}): PolicyServiceRow => ({
  key: `${namespace}/${name}`,
  namespace,
  name,
  labels,
  selector: { app },
  addresses: [],
});
const services = [
  service('default', 'myservice', 'mine'),
  service('another-namespace', 'x', 'staged', { env: 'staging' }),
  service('another-namespace', 'myservice', 'other'),
];
const address = (text: string, kind: 'host' | 'remote-node', apiServer = false) => ({
  address: text,
  identity: reservedIdentities[kind],
  kind,
  namedPorts: [],
  ifindex: 0,
  endpointId: 0,
  ...(apiServer && { apiServer }),
});

function modelOf(objects: unknown[], nodeLabels: Record<string, string>): PolicyModel {
  const context: PolicyContext = {
    clusterStaged: false,
    namespaceStaged: () => undefined,
    nodeLabels,
    nodes: () => nodes,
    cidrGroups: () => [],
    services: () => services,
  };
  return {
    identities: reservedIdentityRows(),
    namespaces: [
      { name: 'allies', labels: { faction: 'alliance' } },
      { name: 'empire', labels: { faction: 'empire' } },
    ],
    addresses: [
      address('192.168.0.1', 'host'),
      address('192.168.0.2', 'remote-node', true),
      address('192.168.0.3', 'remote-node'),
    ],
    prefixes: [
      { cidr: '0.0.0.0/0', identity: reservedIdentities['world-ipv4'] },
      { cidr: '::/0', identity: reservedIdentities['world-ipv6'] },
    ],
    policies: objects.flatMap((object) => resolvePolicy(parsePolicy(object)!.row!, context)),
  };
}

const root = fileURLToPath(new URL('..', import.meta.url));
const folder = join(process.env.WEIR_CORPUS ?? join(root, '../shared/corpus'), 'cilium-policies');
const skip = existsSync(folder) ? false : 'no corpus of policies beside the repository (WEIR_CORPUS names one)';

test('every policy of the corpus has its effects written down', { skip }, async () => {
  const { globSync } = await import('node:fs');
  const files = globSync('**/*.yaml', { cwd: folder }).filter((file) => policiesOf(file).length > 0);
  assert.deepEqual(files.sort(), Object.keys(examples).sort());
});

for (const [file, { effects, unenforced = [], problem }] of Object.entries(examples)) {
  test(`${file} does what it says`, { skip }, () => {
    const objects = policiesOf(file);
    const parsed = objects.map((object) => parsePolicy(object)!);
    const problems = parsed.flatMap((each) => each.problems).join('; ');
    if (problem === undefined) assert.equal(problems, '');
    else assert.match(problems, problem);
    assert.deepEqual(
      parsed.flatMap((each) => each.row!.unenforced),
      unenforced,
    );
    for (const effect of effects) {
      const [, from, to, port, outcome] = /^(.+) -> (.+) (\S+): (.+)$/.exec(effect)!;
      const labels = file.endsWith('lock-down-gke.yaml') ? { type: 'worker' } : nodes[0]!.labels;
      const model = modelOf(objects, labels);
      const end = (text: string) => {
        const found = findEnds(model, services, text);
        assert.ok(found.ok, text);
        return found.ends[0]!.party;
      };
      const { egress, ingress } = evaluateParties(model, end(from!), end(to!), parseService(port!)!);
      const got = !egress.allowed ? 'egress denied' : ingress.allowed ? 'allowed' : 'ingress denied';
      assert.equal(got, outcome, effect);
    }
  });
}

function policiesOf(file: string): { kind: string; metadata: object }[] {
  return parseAllDocuments(readFileSync(join(folder, file), 'utf8'))
    .map((document) => document.toJS() as { kind?: string; metadata?: { namespace?: string } } | null)
    .flatMap((object) => {
      if (!isPolicyKind(object?.kind)) return [];
      const clusterwide = object.kind === 'CiliumClusterwideNetworkPolicy';
      const metadata = { ...(!clusterwide && { namespace: 'default' }), ...object.metadata };
      return [{ ...object, kind: object.kind, metadata: metadata as object }];
    });
}
