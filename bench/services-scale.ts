// What many Services cost an agent: 10 000 of 10 backends from the API's JSON to the maps, in time, CPU and memory, and
// then one slice at a time.
// usage: services-scale.ts [--services N] [--backends N] [--json]
import { spawnSync } from 'node:child_process';
import { parseArgs } from 'node:util';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import {
  type EndpointSliceObject,
  parseService,
  parseServiceSlice,
  type ServiceObject,
} from '../src/connect/services/parse-service.ts';
import { createServiceDerivation, type ExtraFrontends } from '../src/connect/services/service-derivation.ts';
import { createServiceTarget } from '../src/connect/services/service-target.ts';
import { createReconciler } from '../src/core/reconciler.ts';
import type { AddressRow, FrontendRow, ServiceRow, ServiceSliceRow } from '../src/core/rows.ts';
import { createTable } from '../src/core/table.ts';
import { arrayWindows } from '../src/kernel/array-windows.ts';
import { createMap } from '../src/kernel/bpf-map.ts';
import { datapathMaps } from '../src/kernel/datapath.gen.ts';
import { createTidying } from '../src/programs/agent/tidying.ts';
import { type Measure, printReport, quantile } from './report.ts';

const { values } = parseArgs({
  options: {
    services: { type: 'string', default: '10000' },
    backends: { type: 'string', default: '10' },
    json: { type: 'boolean', default: false },
  },
});
// As agents are started (bin/weir): how large the young generation is decides about time and memory both.
const agentFlag = '--max-semi-space-size=2';
if (!process.execArgv.includes(agentFlag)) {
  const { status } = spawnSync(process.execPath, [agentFlag, ...process.argv.slice(1)], { stdio: 'inherit' });
  process.exit(status ?? 1);
}
setFlagsFromString('--expose-gc');
globalThis.gc = runInNewContext('gc') as typeof globalThis.gc;
const tidying = createTidying(() => 0);
const serviceCount = Number(values.services);
const backendCount = Number(values.backends);
const pageSize = 500;
const changes = 500;

const address = (service: number, backend: number) => {
  const number = service * backendCount + backend;
  return `10.${128 + (number >> 16)}.${(number >> 8) & 255}.${number & 255}`;
};
const managed = { 'endpointslice.kubernetes.io/managed-by': 'endpointslice-controller.k8s.io' };

function serviceObject(i: number): ServiceObject {
  const clusterIP = `10.96.${i >> 8}.${i & 255}`;
  return {
    metadata: {
      name: `svc-${i}`,
      namespace: `ns-${i % 100}`,
      uid: `uid-${i}`,
      creationTimestamp: '2026-01-01T00:00:00Z',
    },
    spec: {
      type: 'ClusterIP',
      clusterIP,
      clusterIPs: [clusterIP],
      ports: [{ name: 'http', protocol: 'TCP', port: 80 }],
    },
  };
}

function sliceObject(i: number, without = -1): EndpointSliceObject {
  const endpoints = Array.from({ length: backendCount }, (_, b) => ({
    addresses: [address(i, b)],
    conditions: { ready: b !== without, serving: b !== without, terminating: false },
    nodeName: `node-${b}`,
  }));
  return {
    metadata: {
      name: `svc-${i}-abcde`,
      namespace: `ns-${i % 100}`,
      labels: { 'kubernetes.io/service-name': `svc-${i}`, ...managed },
    },
    addressType: 'IPv4',
    ports: [{ name: 'http', protocol: 'TCP', port: 8080 }],
    endpoints,
  };
}

function pages<T>(make: (i: number) => T): string[] {
  return Array.from({ length: Math.ceil(serviceCount / pageSize) }, (_, page) =>
    JSON.stringify(
      Array.from({ length: Math.min(pageSize, serviceCount - page * pageSize) }, (_, i) => make(page * pageSize + i)),
    ),
  );
}

function map(name: 'services' | 'lb_slots' | 'backends' | 'backend_counts' | 'source_ranges' | 'direct_backends') {
  const { type, flags, key, value, maxEntries } = datapathMaps[name];
  return createMap({ name, type, flags, keySize: key.size, valueSize: value.size, maxEntries });
}

/** What the process has once it has tidied up as an agent does when a burst of work is over. */
async function settledBytes(): Promise<number> {
  for (let i = 0; i < 4; i++) {
    tidying.now();
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return process.memoryUsage().rss;
}

function startAll() {
  const slots = arrayWindows(map('lb_slots'));
  const backends = arrayWindows(map('backends'));
  const target = createServiceTarget({
    services: map('services'),
    sourceRanges: map('source_ranges'),
    directBackends: map('direct_backends'),
    slots,
    backends,
    backendCounts: arrayWindows(map('backend_counts')),
  });
  const services = createTable<ServiceRow, 'clusterIp'>({
    name: 'services',
    key: (row) => row.key,
    indexes: { clusterIp: (row) => row.clusterIps },
  });
  const slices = createTable<ServiceSliceRow, 'service'>({
    name: 'slices',
    key: (row) => row.key,
    indexes: { service: (row) => row.service },
  });
  const extras = createTable<ExtraFrontends>({ name: 'extras', key: (row) => row.owner });
  const addresses = createTable<AddressRow>({ name: 'addresses', key: (row) => row.address });
  const frontends = createTable<FrontendRow>({ name: 'frontends', key: (row) => row.key });
  for (const table of [extras, addresses]) table.markInitialized();
  const node = {
    name: 'node-1',
    addresses: new Set(['192.0.2.1']),
    directReturn: [],
    inMaintenance: () => false,
    nodeOf: () => undefined,
  };
  const derivation = createServiceDerivation({ services, slices, extras, addresses, to: frontends, node: () => node });
  const reconciler = createReconciler<FrontendRow>({ name: 'frontends', table: frontends, target });
  return { services, slices, frontends, derivation, reconciler, target };
}

/** A function of its own, so that nothing of the last page stays. */
function read(texts: string[], take: (page: unknown) => void): void {
  for (let text = texts.shift(); text !== undefined; text = texts.shift()) take(JSON.parse(text));
}

const all = startAll();
const before = await settledBytes();
const lists = { services: pages(serviceObject), slices: pages((i) => sliceObject(i)) };
const cpuBefore = process.cpuUsage();
const began = performance.now();
read(lists.services, (page) =>
  all.services.upsert((page as ServiceObject[]).flatMap((each) => parseService(each) ?? [])),
);
read(lists.slices, (page) =>
  all.slices.upsert((page as EndpointSliceObject[]).flatMap((each) => parseServiceSlice(each) ?? [])),
);
all.services.markInitialized();
all.slices.markInitialized();
all.derivation.run();
await all.reconciler.waitFor(all.frontends.revision);
const allMs = performance.now() - began;
const { user, system } = process.cpuUsage(cpuBefore);
const grownBytes = (await settledBytes()) - before;
if (all.target.pressure().backends.used !== serviceCount * backendCount) throw new Error('backends are missing');

const times: number[] = [];
for (let i = 0; i < changes; i++) {
  const which = (i * 7919) % serviceCount;
  const text = JSON.stringify(sliceObject(which, i % backendCount));
  const start = performance.now();
  all.slices.upsert(parseServiceSlice(JSON.parse(text))!);
  all.derivation.run();
  await all.reconciler.waitFor(all.frontends.revision);
  times.push(performance.now() - start);
}
times.sort((a, b) => a - b);

const below = (measure: string, unit: string, value: number, goal: number, rival?: number): Measure => ({
  measure,
  unit,
  median: value,
  goal,
  rival,
  met: value < goal ? 'yes' : 'no',
});
const what = `${serviceCount} services × ${backendCount} backends`;
printReport(
  'services-scale',
  [
    below(`${what}, from the API’s lists to the maps`, 'ms', allMs, 3000),
    below(`${what}, CPU`, 's', (user + system) / 1e6, 3, 11.7),
    below(`${what}, memory more`, 'MiB', grownBytes / 2 ** 20, 50, 57),
    below('one slice changes, p50', 'ms', quantile(times, 0.5), 3),
    below('one slice changes, p99', 'ms', quantile(times, 0.99), 10),
  ],
  values.json!,
);
process.exit(0);
