// The client of each kind of receiver. Those that need a package of their own bring it only when they are asked for.
import type { FlowContext } from '../flows/flow-message.ts';
import { createElasticsearchSink } from './elasticsearch-sink.ts';
import type { ExporterConfig } from './export-config.ts';
import { createFileSink } from './file-sink.ts';
import { createOtlpSink, type PrometheusMetric } from './otlp-sink.ts';
import type { Sink } from './sink.ts';
import { createSplunkSink } from './splunk-sink.ts';
import { createStdoutSink } from './stdout-sink.ts';
import { createSyslogSink } from './syslog-sink.ts';

/** Makes the client of an exporter. */
export async function createSink(
  config: ExporterConfig,
  context: FlowContext,
  metrics: (() => Promise<readonly PrometheusMetric[]>) | undefined,
  onError: (message: string) => void,
): Promise<Sink> {
  switch (config.type) {
    case 'file':
      return createFileSink(config, onError);
    case 'stdout':
      return createStdoutSink();
    case 'syslog':
      return createSyslogSink(config);
    case 'splunk':
      return createSplunkSink(config, context.nodeName);
    case 'elasticsearch':
      return createElasticsearchSink(config);
    case 'kafka':
      return (await import('./kafka-sink.ts')).createKafkaSink(config);
    case 'otlp':
      return createOtlpSink(config, context, metrics, onError);
  }
}
