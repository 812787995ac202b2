import assert from 'node:assert/strict';
import { test } from 'node:test';
import { summarizeVerifierLog } from './verifier-log.ts';

test('summarizeVerifierLog keeps the complaint, its source line and a short tail', () => {
  const log = [
    'func#0 @0',
    ...Array.from({ length: 500 }, (_, i) => `${i}: (bf) r1 = r2                      ; R1_w=ctx() R2=fp0`),
    '; return v->x; @ pod.bpf.c:26',
    'R1=ctx() R10=fp0',
    '500: (61) r0 = *(u32 *)(r0 +0)',
    "R0 invalid mem access 'map_value_or_null'",
    'processed 8 insns (limit 1000000) max_states_per_insn 0',
    'verification time 90 usec',
  ].join('\n');
  const complaint = summarizeVerifierLog(log);
  assert.equal(complaint.reason, "R0 invalid mem access 'map_value_or_null'");
  assert.equal(complaint.sourceLine, 'return v->x; @ pod.bpf.c:26');
  assert.equal(complaint.tail.length, 8);
});

test('summarizeVerifierLog accepts an empty log', () => {
  assert.deepEqual(summarizeVerifierLog(''), {
    reason: 'the verifier gave no reason',
    sourceLine: undefined,
    tail: [],
  });
});
