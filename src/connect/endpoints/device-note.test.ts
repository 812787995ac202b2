import assert from 'node:assert/strict';
import { test } from 'node:test';
import { longestAliasBytes } from '../../kernel/links.ts';
import { type DeviceNote, formatNote, parseNote } from './device-note.ts';

const note: DeviceNote = {
  containerId: 'a'.repeat(64),
  interfaceName: 'eth0',
  netns: '/var/run/netns/cni-7d1c3b44-0c6e-4d0b-8f6e-1f2d3c4b5a69',
  podUid: '5f0c1c1e-6a57-4a4f-9d0e-6d0f9f2b7c11',
  namespace: 'shop',
  pod: 'web-7d4b9c6f5-x2x9k',
};

test('parseNote() reads what formatNote() wrote', () => {
  assert.deepEqual(parseNote(formatNote(note)!), note);
  const bare = { ...note, podUid: undefined, namespace: undefined, pod: undefined };
  assert.deepEqual(parseNote(formatNote(bare)!), bare);
});

test('formatNote() leaves out names that do not fit, and gives up where the container does not', () => {
  const long = { ...note, namespace: 'n'.repeat(63), pod: 'p'.repeat(200) };
  const text = formatNote(long)!;
  assert.ok(text.length <= longestAliasBytes);
  assert.deepEqual(parseNote(text), { ...note, namespace: undefined, pod: undefined });
  assert.equal(formatNote({ ...note, netns: `/${'x'.repeat(200)}` }), undefined);
  assert.equal(formatNote({ ...note, netns: '/run/net ns' }), undefined);
});

test('parseNote() takes no other text for a note', () => {
  for (const text of ['', 'uplink to the rack', 'weir1', 'weir1 c eth0', 'weir2 c eth0 /run/netns/c'])
    assert.equal(parseNote(text), undefined, text);
});
