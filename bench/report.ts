// How benchmarks print: one line per measure for people, one JSON object for machines.
import { cpus, release } from 'node:os';
import { exitWhenOutputCloses } from '../src/kernel/closed-pipe.ts';

/** One measure. `ratio` is against the rival measured in the same run; `goal` is what the project wants. */
export interface Measure {
  readonly measure: string;
  readonly unit: string;
  readonly median: number;
  readonly [detail: string]: number | string | undefined;
}

/** The value below which the share `q` of sorted values lies. */
export function quantile(sorted: readonly number[], q: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? Number.NaN;
}

/** The median of values in any order. */
export function median(values: readonly number[]): number {
  return quantile(
    [...values].sort((a, b) => a - b),
    0.5,
  );
}

/** What the figures were taken on. */
export function machine(): string {
  return `${cpus().length} × ${cpus()[0]?.model ?? 'CPU'}, Linux ${release()}, Node ${process.versions.node}`;
}

/** Prints the report of one benchmark. */
export function printReport(name: string, measures: readonly Measure[], json: boolean): void {
  exitWhenOutputCloses();
  if (json) {
    process.stdout.write(`${JSON.stringify({ name, date: new Date().toISOString(), machine: machine(), measures })}\n`);
    return;
  }
  process.stdout.write(`${name} (${machine()})\n`);
  for (const { measure, unit, median: value, ...details } of measures) {
    const rest = Object.entries(details)
      .filter(([, each]) => each !== undefined)
      .map(([key, each]) => `${key} ${showNumber(each!)}`);
    process.stdout.write(
      `  ${measure.padEnd(46)} ${showNumber(value).padStart(10)} ${unit.padEnd(6)} ${rest.join(', ')}\n`,
    );
  }
}

/** A number with as many digits as a reader needs. */
export function showNumber(value: number | string): string {
  if (typeof value === 'string') return value;
  return String(Number(value.toFixed(Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 3)));
}
