// Writes deploy/dashboards from scripts/dashboards.ts.
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { dashboardJson, dashboards } from './dashboards.ts';

process.chdir(fileURLToPath(new URL('..', import.meta.url)));
mkdirSync('deploy/dashboards', { recursive: true });
for (const each of dashboards)
  writeFileSync(`deploy/dashboards/${each.name}.json`, `${JSON.stringify(dashboardJson(each), undefined, 2)}\n`);
execFileSync('node_modules/.bin/biome', ['format', '--write', 'deploy'], { stdio: ['ignore', 'ignore', 'inherit'] });
