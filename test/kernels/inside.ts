// The first process of the virtual machine: makes a system of it, runs the tests, and switches it off.
import { spawnSync } from 'node:child_process';
import { mkdirSync, openSync, readdirSync, readFileSync } from 'node:fs';
import { release } from 'node:os';
import { fileURLToPath } from 'node:url';
import koffi from 'koffi';
import { mount, rawSyscall } from '../../src/kernel/libc.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const finitModule = 313;
/** The emulator is told to end instead. */
const RB_AUTOBOOT = 0x1234567;
const reboot = koffi.load('libc.so.6').func('reboot', 'int', ['int']);

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

function makeSystem(): void {
  for (const [type, path] of [
    ['proc', '/proc'],
    ['sysfs', '/sys'],
    ['devtmpfs', '/dev'],
    ['bpf', '/sys/fs/bpf'],
    ['cgroup2', '/sys/fs/cgroup'],
    ['tmpfs', '/tmp'],
    ['tmpfs', '/run'],
  ] as const) {
    mkdirSync(path, { recursive: true });
    mount(type, path, type, 0);
  }
  // In any order: those that need another come again.
  let left = readdirSync('/modules');
  for (let before = -1; left.length > 0 && left.length !== before; ) {
    before = left.length;
    left = left.filter((name) => rawSyscall(finitModule, openSync(`/modules/${name}`, 'r'), new Uint8Array(1), 0) < 0);
  }
  if (left.length > 0) say(`modules that the kernel refused: ${left.join(', ')}`);
}

function run(what: string, args: readonly string[]): boolean {
  const started = performance.now();
  const { status, signal } = spawnSync(args[0]!, args.slice(1), {
    cwd: root,
    stdio: 'inherit',
    env: {
      PATH: '/bin:/usr/bin',
      HOME: '/root',
      WEIR_TEST_OUTPUT: '1',
      NODE_COMPILE_CACHE: `${root}build/node-cache`,
      NODE_COMPILE_CACHE_PORTABLE: '1',
    },
  });
  say(
    `${status === 0 ? 'ok  ' : 'FAIL'} ${what} (${((performance.now() - started) / 1000).toFixed(0)} s)${signal ?? ''}`,
  );
  return status === 0;
}

const tests = (...files: string[]) => [process.execPath, 'scripts/run-tests.ts', '--concurrency', '1', ...files];
const steps: Readonly<Record<string, readonly string[]>> = {
  doctor: ['bin/weir', 'doctor'],
  programs: [process.execPath, 'test/kernels/load-all.ts'],
  packets: tests('bpf/test/datapath.test.ts'),
  traffic: tests('test/kernels/traffic.test.ts', 'src/kernel/device-attachment.test.ts'),
};

function main(chosen: readonly string[]): void {
  makeSystem();
  say(`Linux ${release()}, up for ${readFileSync('/proc/uptime', 'utf8').split(' ')[0]} s`);
  const results = (chosen.length > 0 ? chosen : Object.keys(steps)).map((name) => run(name, steps[name]!));
  const failed = results.filter((ok) => !ok).length;
  say(`steps: ${results.length - failed} passed, ${failed} failed`);
}

try {
  main(process.argv.slice(2));
} catch (error) {
  say(String((error as Error).stack));
} finally {
  reboot(RB_AUTOBOOT);
}
