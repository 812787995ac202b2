// The contracts against the published field numbers, and the generated code against the contracts.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type DescEnum, type DescField, type DescFile, type DescMessage, ScalarType } from '@bufbuild/protobuf';
import { file_flow_flow } from '../proto/gen/flow/flow_pb.js';
import { file_observer_observer } from '../proto/gen/observer/observer_pb.js';
import { file_peer_peer } from '../proto/gen/peer/peer_pb.js';
import { file_relay_relay } from '../proto/gen/relay/relay_pb.js';
import { staleProto } from './generate-proto.ts';

const root = fileURLToPath(new URL('../', import.meta.url));
const facts = join(process.env.WEIR_FACTS ?? join(root, '../shared/facts'), 'hubble-wire.tsv');
const files: DescFile[] = [file_flow_flow, file_observer_observer, file_peer_peer, file_relay_relay];

function hasProtoc(): boolean {
  try {
    execFileSync('protoc', ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

test('proto/gen is what proto/ says', {
  skip: hasProtoc() ? false : 'protoc is not installed (protobuf-compiler)',
}, () => {
  assert.deepEqual(staleProto(), []);
});

function fieldType(field: DescField): string {
  const one = field.message?.typeName ?? field.enum?.typeName ?? ScalarType[field.scalar!]!.toLowerCase();
  return field.fieldKind === 'list' ? `repeated ${one}` : one;
}

/** Everything a contract says, one line each, as the table of facts says it. */
function linesOf(file: DescFile): string[] {
  const pkg = file.proto.package;
  const short = (name: string) => name.slice(pkg.length + 1);
  const lines: string[] = [];
  const ofEnum = (each: DescEnum) => {
    for (const value of each.values)
      lines.push(
        `enum ${pkg} ${short(each.typeName)} ${value.name} ${value.number}${value.proto.options?.deprecated ? ' deprecated' : ''}`,
      );
  };
  const ofMessage = (each: DescMessage) => {
    if (each.fields.length === 0) lines.push(`message ${pkg} ${short(each.typeName)}`);
    for (const field of each.fields) {
      const oneof = field.oneof === undefined ? '' : ` oneof ${field.oneof.name}`;
      lines.push(
        `field ${pkg} ${short(each.typeName)} ${field.name} ${field.number} ${fieldType(field)}${oneof}${field.proto.options?.deprecated ? ' deprecated' : ''}`,
      );
    }
    for (const { start, end } of each.proto.reservedRange)
      lines.push(`reserved ${pkg} ${short(each.typeName)} ${start}..${end - 1}`);
    each.nestedEnums.forEach(ofEnum);
    each.nestedMessages.forEach(ofMessage);
  };
  file.enums.forEach(ofEnum);
  file.messages.forEach(ofMessage);
  for (const service of file.services) {
    for (const method of service.methods) {
      const stream = method.methodKind === 'server_streaming' ? 'stream ' : '';
      lines.push(
        `rpc ${pkg} ${service.name} ${method.name} ${method.input.typeName} -> ${stream}${method.output.typeName}`,
      );
    }
  }
  return lines.sort();
}

test('proto/ has the published names, numbers and types, and no others', {
  skip: existsSync(facts) ? false : `${facts} is not there (WEIR_FACTS)`,
}, () => {
  const rows = readFileSync(facts, 'utf8').trimEnd().split('\n').slice(1);
  const published = rows.map((row) => {
    const [kind, pkg, message, name, number, type, notes] = row.split('\t').map((cell) => cell.trim());
    return [kind, pkg, message, name, number, type, notes]
      .filter((cell) => cell !== undefined && cell !== '')
      .join(' ');
  });
  assert.deepEqual(files.flatMap(linesOf).sort(), published.sort());
});
