// Flows that were written to a file: a response, or a flow alone, as JSON on each line.
import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { create, createRegistry, fromJson, type JsonObject } from '@bufbuild/protobuf';
import { StructSchema } from '@bufbuild/protobuf/wkt';
import { FlowSchema } from '../../../../proto/gen/flow/flow_pb.js';
import { type GetFlowsResponse, GetFlowsResponseSchema } from '../../../../proto/gen/observer/observer_pb.js';
import { WeirError } from '../../../core/errors.ts';
import { type NodeFlow, timestampNs } from './node-stream.ts';

// Fields beside the contract's, and what newer clients write, are passed over.
const options = { ignoreUnknownFields: true, registry: createRegistry(StructSchema) };
/** Lines that are no flows are named up to here, and then only counted. */
const saidLines = 3;

/** The responses of a file, `-` for standard input. `say` is told of lines that are none; a file without any throws. */
export async function* readFlowFile(file: string, say: (message: string) => void): AsyncGenerator<NodeFlow> {
  const input = file === '-' ? process.stdin : createReadStream(file);
  const lines = createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY });
  let number = 0;
  let read = 0;
  let bad = 0;
  try {
    for await (const line of lines) {
      number++;
      if (line.trim() === '') continue;
      const response = parseFlowLine(line);
      if (typeof response === 'string') {
        if (++bad <= saidLines) say(`${file}, line ${number}: ${response}`);
        continue;
      }
      read++;
      yield { timeNs: timestampNs(response.time), response };
    }
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === undefined || !('syscall' in (error as object))) throw error;
    throw new WeirError('CONFIG_INVALID', `--input-file cannot be read: ${message}`);
  }
  if (bad > saidLines) say(`${file}: ${bad} lines in all are no flows`);
  if (bad > 0 && read === 0)
    throw new WeirError('CONFIG_INVALID', `${file} has no flows`, 'It takes what weir observe -o json writes.');
}

/** A line's response, or what is wrong with it. */
export function parseFlowLine(line: string): GetFlowsResponse | string {
  let json: JsonObject;
  try {
    json = JSON.parse(line);
  } catch {
    return 'is no JSON';
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json)) return 'is no object';
  try {
    const whole = ['flow', 'lost_events', 'node_status', 'lostEvents', 'nodeStatus'].some((name) =>
      Object.hasOwn(json, name),
    );
    if (whole) return fromJson(GetFlowsResponseSchema, json, options);
    if (!Object.hasOwn(json, 'verdict') && !Object.hasOwn(json, 'IP') && !Object.hasOwn(json, 'time'))
      return 'is no flow';
    const flow = fromJson(FlowSchema, json, options);
    return create(GetFlowsResponseSchema, {
      responseTypes: { case: 'flow', value: flow },
      nodeName: flow.nodeName,
      time: flow.time,
    });
  } catch (error) {
    return `is no flow: ${(error as Error).message}`;
  }
}
