// Generated files are committed, so that the code can be read and typed without building: they must be current.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

process.chdir(fileURLToPath(new URL('..', import.meta.url)));
const codecs = 'src/kernel/datapath.gen.ts';
const before = readFileSync(codecs, 'utf8');
execFileSync(process.execPath, ['scripts/build-bpf.ts'], { stdio: 'inherit' });
if (readFileSync(codecs, 'utf8') !== before) {
  process.stdout.write(`${codecs} was not current: it has been made anew, commit it\n`);
  process.exitCode = 1;
}
execFileSync(process.execPath, ['scripts/generate-proto.ts', '--check'], { stdio: 'inherit' });
