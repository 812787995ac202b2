import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { test } from 'node:test';
import { piecewiseOutput } from './piecewise-output.ts';

/** A stream that says of each piece whether it took it. */
function fakeStream(takes: () => boolean) {
  const pieces: string[] = [];
  const events = new EventEmitter();
  const stream = {
    write(text: string) {
      pieces.push(text);
      events.emit('piece');
      return takes();
    },
    once: (name: string, listener: () => void) => events.once(name, listener),
  };
  return { stream: stream as never, pieces, events };
}

test('piecewiseOutput() writes the lines of a turn together, and long ones at once', async () => {
  const { stream, pieces, events } = fakeStream(() => true);
  const out = piecewiseOutput(stream);
  assert.equal(out.write('a\n'), undefined);
  assert.equal(out.write('b\n'), undefined);
  await once(events, 'piece');
  assert.deepEqual(pieces, ['a\nb\n']);
  out.write('x'.repeat(70_000));
  assert.equal(pieces.length, 2);
  out.write('c\n');
  out.flush();
  assert.equal(pieces[2], 'c\n');
});

test('piecewiseOutput() makes its writer wait until the other end has read', async () => {
  let room = false;
  const { stream, events } = fakeStream(() => room);
  const out = piecewiseOutput(stream);
  out.write('a\n');
  const waits = out.flush();
  assert.ok(waits);
  assert.equal(out.write('b\n'), waits);
  room = true;
  events.emit('drain');
  await waits;
  assert.equal(out.write('c\n'), undefined);
  assert.equal(out.flush(), undefined);
});
