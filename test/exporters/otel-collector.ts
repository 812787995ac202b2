// A collector of OpenTelemetry for tests: what it has acknowledged is in files, one for each time that it was started.
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { buildCollector } from '../../lab/programs.ts';
import { terminalProgress } from '../../lab/progress.ts';
import { writeCertificates } from './certificates.ts';
import { answersTcp, freePort, keepRunning, obtained, spawnLogged } from './receiver-process.ts';

/** A member of OTLP's JSON. */
export interface KeyValue {
  readonly key: string;
  readonly value: unknown;
}
/** A log record as the collector wrote it. */
export interface LogRecord {
  readonly timeUnixNano: string;
  readonly attributes: readonly KeyValue[];
  readonly body: unknown;
}
/** What one request brought. */
interface Written {
  readonly resourceLogs?: readonly {
    readonly resource: { readonly attributes: readonly KeyValue[] };
    readonly scopeLogs: readonly { readonly scope: unknown; readonly logRecords: readonly LogRecord[] }[];
  }[];
  readonly resourceMetrics?: readonly {
    readonly resource: { readonly attributes: readonly KeyValue[] };
    readonly scopeMetrics: readonly { readonly metrics: readonly Metric[] }[];
  }[];
}
/** A metric as the collector wrote it. */
export interface Metric {
  readonly name: string;
  readonly description: string;
  readonly sum?: { readonly isMonotonic: boolean; readonly dataPoints: readonly DataPoint[] };
  readonly gauge?: { readonly dataPoints: readonly DataPoint[] };
  readonly histogram?: { readonly dataPoints: readonly DataPoint[] };
}
interface DataPoint {
  readonly startTimeUnixNano: string;
  readonly timeUnixNano: string;
  readonly attributes?: readonly KeyValue[];
  readonly [field: string]: unknown;
}

/** Starts a collector with one port for HTTP and one for HTTPS that wants the token `let me in`. */
export async function startCollector(t: TestContext) {
  const program = await obtained(t, 'the collector of OpenTelemetry', () => buildCollector(terminalProgress()));
  if (program === undefined) return undefined;
  const folder = mkdtempSync(join(tmpdir(), 'weir-otelcol-'));
  const files = await writeCertificates(folder);
  const [port, securePort] = [await freePort(), await freePort()];
  const refusals = join(folder, 'refusals');
  let runs = 0;
  let fewMemory = false;
  let maxBodyBytes = 20 << 20;
  function configure(): string {
    const config = join(folder, 'config.yaml');
    runs++;
    writeFileSync(
      config,
      JSON.stringify({
        receivers: {
          otlp: { protocols: { http: { endpoint: `127.0.0.1:${port}`, max_request_body_size: maxBodyBytes } } },
          'otlp/secure': {
            protocols: {
              http: {
                endpoint: `127.0.0.1:${securePort}`,
                tls: { cert_file: files.certificate, key_file: files.key, client_ca_file: files.ca },
              },
            },
          },
        },
        processors: {
          refuse: { file: refusals },
          memory_limiter: { check_interval: '10ms', limit_mib: fewMemory ? 2 : 4_000, spike_limit_mib: 1 },
        },
        // Without rotation it acknowledges what is not in the file yet.
        exporters: { file: { path: join(folder, `out-${runs}.jsonl`), rotation: { max_megabytes: 4_000 } } },
        service: {
          telemetry: { metrics: { level: 'none' } },
          pipelines: {
            logs: {
              receivers: ['otlp', 'otlp/secure'],
              processors: ['memory_limiter', 'refuse'],
              exporters: ['file'],
            },
            metrics: { receivers: ['otlp', 'otlp/secure'], exporters: ['file'] },
          },
        },
      }),
    );
    return config;
  }
  const restart = await keepRunning(
    t,
    folder,
    () => spawnLogged(folder, [program, '--config', `file:${configure()}`]),
    () => answersTcp(port),
  );
  let forgotten = 0;
  const all = () =>
    Array.from({ length: runs }, (_, i) => join(folder, `out-${i + 1}.jsonl`))
      .filter((file) => existsSync(file))
      .flatMap((file) =>
        readFileSync(file, 'utf8')
          .split('\n')
          // The end of a line that a kill has cut off was never acknowledged.
          .slice(0, -1)
          .map((line) => JSON.parse(line) as Written),
      );
  const written = () => all().slice(forgotten);
  return {
    url: `http://127.0.0.1:${port}`,
    secureUrl: `https://localhost:${securePort}`,
    files,
    folder,
    restart,
    /** Kills it and starts it as one that never has the memory for anything, or that has enough. */
    restartWith: async (given: { fewMemory?: boolean; maxBodyBytes?: number }) => {
      fewMemory = given.fewMemory ?? fewMemory;
      maxBodyBytes = given.maxBodyBytes ?? maxBodyBytes;
      await restart();
    },
    /** Logs are refused from now on, as lab/otelcol/refuse.go says; undefined ends it. */
    refuse(words: string | undefined) {
      if (words !== undefined) writeFileSync(refusals, words);
      else if (existsSync(refusals)) rmSync(refusals);
    },
    /** What is there already is shown no more. */
    forget() {
      forgotten = all().length;
    },
    logs: () => written().flatMap((each) => each.resourceLogs ?? []),
    metrics: () => written().flatMap((each) => each.resourceMetrics ?? []),
  };
}
