// Metrics whose values are looked up when somebody asks: what is shown is what is.
import { Counter, Gauge, type Registry } from 'prom-client';

/** Rows of a metric: labels and a value. */
export type MetricRows<L extends string> = () => Iterable<readonly [Record<L, string>, number]>;

/** Makes metrics in a registry. */
export interface MetricsMaker {
  gauge(name: string, help: string, value: () => number): void;
  counter(name: string, help: string, value: () => number): void;
  gauges<L extends string>(name: string, help: string, labels: readonly L[], rows: MetricRows<L>): void;
  counters<L extends string>(name: string, help: string, labels: readonly L[], rows: MetricRows<L>): void;
}

/** For one registry. */
export function metricsIn(registry: Registry): MetricsMaker {
  const registers = [registry];
  function table<L extends string>(
    Kind: typeof Gauge | typeof Counter,
    name: string,
    help: string,
    labelNames: readonly L[],
    rows: MetricRows<L>,
  ): void {
    new Kind({
      name,
      help,
      labelNames: [...labelNames],
      registers,
      collect() {
        this.reset();
        for (const [labels, value] of rows()) this.inc(labels, value);
      },
    });
  }
  return {
    gauge: (name, help, value) => table(Gauge, name, help, [], () => [[{}, value()]]),
    counter: (name, help, value) => table(Counter, name, help, [], () => [[{}, value()]]),
    gauges: (name, help, labels, rows) => table(Gauge, name, help, labels, rows),
    counters: (name, help, labels, rows) => table(Counter, name, help, labels, rows),
  };
}
