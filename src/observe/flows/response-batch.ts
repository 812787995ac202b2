// Responses of GetFlows as they go out: many in one piece of bytes, each in its frame.
import { create, toBinary } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import { GetFlowsResponseSchema } from '../../../proto/gen/observer/observer_pb.js';
import { FramedMessages } from '../rpc/rpc-service.ts';
import { createFlowEncoder } from './encode-flow.ts';
import type { FieldMask } from './field-mask.ts';
import { type FlowContext, lostMessage } from './flow-message.ts';
import type { Loss } from './loss-log.ts';
import type { FlowSink } from './read-flows.ts';
import { createWireWriter } from './wire-writer.ts';

const pieceBytes = 64 << 10;

/** For one reader. */
export function createResponseBatch(context: FlowContext, mask?: FieldMask): FlowSink<FramedMessages> {
  const out = createWireWriter();
  const encoder = createFlowEncoder(context, mask, out);
  return {
    flow(row) {
      const start = out.length;
      const frame = out.openFrame();
      try {
        encoder.writeResponse(row);
      } catch (error) {
        // Half a message would make what was written before it unreadable, too.
        out.takeFrom(start);
        throw error;
      }
      out.closeFrame(frame);
    },
    lost(loss) {
      const message = lostResponse(loss, context);
      const frame = out.openFrame();
      out.raw(message);
      out.closeFrame(frame);
    },
    get isFull() {
      return out.length >= pieceBytes;
    },
    take: () => (out.length === 0 ? undefined : new FramedMessages(out.take())),
  };
}

function lostResponse(loss: Loss, { nodeName }: FlowContext): Uint8Array {
  return toBinary(
    GetFlowsResponseSchema,
    create(GetFlowsResponseSchema, {
      responseTypes: { case: 'lostEvents', value: lostMessage(loss) },
      nodeName,
      time: timestampFromMs(Math.floor(loss.lastMs)),
    }),
  );
}
