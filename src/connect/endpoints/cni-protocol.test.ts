import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  CniError,
  type CniRequest,
  cniCodes,
  cniVersions,
  formatCniError,
  formatResult,
  parseCniRequest,
} from './cni-protocol.ts';

const env = {
  command: 'ADD',
  containerId: 'c1',
  netns: '/run/netns/c1',
  ifname: 'eth0',
  args: 'IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=u1',
};
const config = (more: object = {}) => JSON.stringify({ cniVersion: '1.1.0', name: 'weir', type: 'weir-cni', ...more });
const made = {
  hostInterface: 'weir1',
  hostMac: '0e:57:00:00:00:01',
  ifname: 'eth0',
  mac: '0a:57:00:00:00:01',
  netns: '/run/netns/c1',
  mtu: 1450,
  ipv4: '10.0.0.1',
  ipv6: 'fd00::1',
};

function refused(code: number, work: () => unknown, text?: RegExp): void {
  assert.throws(work, (error: unknown) => {
    assert.ok(error instanceof CniError);
    assert.equal(error.code, code, error.message);
    if (text !== undefined) assert.match(error.message, text);
    return true;
  });
}

test('parseCniRequest() reads who the pod is from CNI_ARGS', () => {
  assert.deepEqual(parseCniRequest(env, config()).pod, { namespace: 'shop', name: 'web-0', uid: 'u1' });
  assert.equal(parseCniRequest({ ...env, args: 'K8S_POD_NAME=x' }, config()).pod, undefined);
  assert.equal(parseCniRequest({ ...env, args: undefined }, config()).pod, undefined);
});

test('parseCniRequest() knows every version and no other', () => {
  for (const version of cniVersions)
    assert.equal(parseCniRequest(env, config({ cniVersion: version })).config.cniVersion, version);
  assert.equal(parseCniRequest(env, JSON.stringify({ name: 'weir', type: 'x' })).config.cniVersion, '0.3.1');
  for (const version of ['0.1.0', '0.3.0', '2.0.0', ''])
    refused(cniCodes.incompatibleVersion, () => parseCniRequest(env, config({ cniVersion: version })));
});

test('GC and STATUS came with 1.1.0', () => {
  for (const command of ['GC', 'STATUS']) {
    assert.equal(parseCniRequest({ command }, config()).command, command);
    refused(cniCodes.incompatibleVersion, () => parseCniRequest({ command }, config({ cniVersion: '1.0.0' })));
  }
});

test('parseCniRequest() refuses a bad environment with code 4 and names the variable', () => {
  const bad = (change: object, text: RegExp) =>
    refused(cniCodes.invalidEnvironment, () => parseCniRequest({ ...env, ...change }, config()), text);
  bad({ command: 'add' }, /CNI_COMMAND/);
  bad({ containerId: undefined }, /CNI_CONTAINERID/);
  for (const containerId of ['', '-c', 'a b', 'a/b', '../x', 'x'.repeat(201)]) bad({ containerId }, /CNI_CONTAINERID/);
  for (const ifname of [undefined, '', 'x'.repeat(16), 'a/b', 'a:b', 'a b', '.', '..']) bad({ ifname }, /CNI_IFNAME/);
  bad({ netns: '' }, /CNI_NETNS/);
  assert.equal(parseCniRequest({ ...env, command: 'DEL', netns: undefined }, config()).netns, '');
});

test('parseCniRequest() refuses a bad configuration with the path to what is wrong', () => {
  refused(cniCodes.decodeFailure, () => parseCniRequest(env, '{"name":'));
  refused(cniCodes.invalidConfig, () => parseCniRequest(env, '[]'));
  refused(cniCodes.invalidConfig, () => parseCniRequest(env, config({ name: '' })), /"name"/);
  refused(cniCodes.invalidConfig, () => parseCniRequest(env, config({ mtu: 10 })), /"mtu"/);
  refused(
    cniCodes.invalidConfig,
    () => parseCniRequest(env, config({ prevResult: { ips: [{ address: 5 }] } })),
    /prevResult\.ips\.0\.address/,
  );
  assert.equal(parseCniRequest(env, config({ prevResult: null, unknown: { deep: 1 } })).config.prevResult, null);
});

test('formatResult() marks families up to 0.4.0 and names the MTU from 1.1.0 on', () => {
  for (const version of cniVersions) {
    const { config: parsed } = parseCniRequest(env, config({ cniVersion: version }));
    const result = formatResult(parsed, made);
    const old = version === '0.3.1' || version === '0.4.0';
    assert.equal(result.cniVersion, version);
    assert.deepEqual(
      result.ips?.map((ip) => ip.version),
      old ? ['4', '6'] : [undefined, undefined],
    );
    assert.deepEqual(
      result.interfaces?.map((each) => each.mtu),
      version === '1.1.0' ? [1450, 1450] : [undefined, undefined],
    );
    assert.deepEqual(
      result.ips?.map((ip) => ip.interface),
      [1, 1],
    );
    assert.deepEqual(
      result.ips?.map((ip) => ip.address),
      ['10.0.0.1/32', 'fd00::1/128'],
    );
    assert.deepEqual(
      result.interfaces?.map((each) => each.sandbox),
      [undefined, '/run/netns/c1'],
    );
  }
});

test('formatResult() keeps what plugins before us made, and counts interfaces after theirs', () => {
  const before = {
    cniVersion: '1.1.0',
    interfaces: [{ name: 'other' }],
    ips: [{ address: '192.0.2.1/24', interface: 0 }],
    routes: [{ dst: '192.0.2.0/24' }],
    dns: { nameservers: ['192.0.2.53'] },
  };
  const { config: parsed } = parseCniRequest(env, config({ prevResult: before }));
  const result = formatResult(parsed, { ...made, ipv6: undefined });
  assert.deepEqual(
    result.interfaces?.map((each) => each.name),
    ['other', 'weir1', 'eth0'],
  );
  assert.deepEqual(
    result.ips?.map((ip) => ip.interface),
    [0, 2],
  );
  assert.equal(result.routes?.length, 2);
  assert.deepEqual(result.dns, before.dns);
});

test('a result can be given back as prevResult', () => {
  const { config: first } = parseCniRequest(env, config());
  const prevResult = formatResult(first, made);
  assert.deepEqual(parseCniRequest(env, config({ prevResult })).config.prevResult, prevResult);
});

test('formatCniError() gives anything that was thrown a code', () => {
  assert.deepEqual(formatCniError('1.0.0', new CniError(11, 'later', 'why')), {
    cniVersion: '1.0.0',
    code: 11,
    msg: 'later',
    details: 'why',
  });
  assert.equal(formatCniError('1.0.0', new Error('x')).code, cniCodes.ioFailure);
});

test('parseCniRequest() answers or refuses whatever it gets: random JSON, text and environments', () => {
  const attempt = (given: Parameters<typeof parseCniRequest>[0], body: string): CniRequest | undefined => {
    try {
      return parseCniRequest(given, body);
    } catch (error) {
      assert.ok(error instanceof CniError, String(error));
      return undefined;
    }
  };
  const text = fc.option(fc.string({ unit: 'binary' }), { nil: undefined });
  const command = fc.constantFrom('ADD', 'DEL', 'CHECK', 'GC', 'STATUS', 'VERSION', '');
  fc.assert(
    fc.property(command, text, text, text, fc.json(), (given, id, ifname, args, body) => {
      attempt({ command: given, containerId: id, netns: '/n', ifname, args }, body);
    }),
  );
  fc.assert(fc.property(fc.string({ unit: 'binary' }), (body) => void attempt(env, body)));
  // Close to right: one field of a good configuration is something else.
  const field = fc.constantFrom('cniVersion', 'name', 'type', 'mtu', 'prevResult', 'cni.dev/valid-attachments', 'dns');
  fc.assert(
    fc.property(field, fc.jsonValue(), (name, value) => {
      const request = attempt(env, config({ [name]: value }));
      if (request !== undefined) formatResult(request.config, made);
    }),
  );
});
