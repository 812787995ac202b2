// How long a developer waits for a cluster: three real nodes Ready, Weir and the name server up, everything built before.
import { parseArgs } from 'node:util';
import { downLab, upLab } from '../lab/lab.ts';
import { median, printReport } from './report.ts';

const { values: options } = parseArgs({
  options: { json: { type: 'boolean', default: false }, rounds: { type: 'string', default: '3' } },
});
const name = 'bench';
const up: number[] = [];
const down: number[] = [];
for (let i = 0; i < Number(options.rounds); i++) {
  await downLab(name);
  const started = performance.now();
  await upLab({ name, nodes: 3 });
  const ready = performance.now();
  await downLab(name);
  up.push((ready - started) / 1000);
  down.push((performance.now() - ready) / 1000);
}
const seconds = median(up);
printReport(
  'lab',
  [
    {
      measure: 'lab of 3 nodes, warm, until Ready',
      unit: 's',
      median: seconds,
      most: Math.max(...up),
      goal: 30,
      met: seconds < 30 ? 'yes' : 'no',
    },
    { measure: 'its end', unit: 's', median: median(down) },
  ],
  options.json!,
);
