// A histogram for what happens thousands of times a second: observing adds to three numbers, and rows with labels and
// exemplars are made when somebody looks. The library's own validates and hashes labels for every value.
import type { Metric } from 'prom-client';

/** A histogram without labels; each bucket has the flow that was observed in it last. */
export interface CountedHistogram {
  observe(value: number, seq: number): void;
  /** For a registry. */
  readonly metric: Metric;
}

/** Makes a histogram. `buckets` are upper bounds, in order; `uuid` names a flow, for exemplars. */
export function createCountedHistogram(options: {
  readonly name: string;
  readonly help: string;
  readonly buckets: readonly number[];
  readonly uuid: (seq: number) => string;
}): CountedHistogram {
  const { name, help, buckets, uuid } = options;
  // The last one is for what is above all bounds.
  const places = buckets.length + 1;
  const counts = new Float64Array(places);
  const lastValues = new Float64Array(places);
  const lastSeqs = new Float64Array(places);
  const lastMs = new Float64Array(places);
  let sum = 0;

  function exemplarOf(place: number): object | undefined {
    if (counts[place] === 0) return undefined;
    return {
      labelSet: { flow: uuid(lastSeqs[place]!) },
      value: lastValues[place]!,
      timestamp: lastMs[place]! / 1000,
    };
  }

  function values(): object[] {
    let below = 0;
    const rows: object[] = [];
    for (let place = 0; place < places; place++) {
      below += counts[place]!;
      const labels = { le: buckets[place] ?? '+Inf' };
      rows.push({ metricName: `${name}_bucket`, labels, value: below, exemplar: exemplarOf(place) });
    }
    rows.push(
      { metricName: `${name}_sum`, labels: {}, value: sum },
      { metricName: `${name}_count`, labels: {}, value: below },
    );
    return rows;
  }

  const metric = {
    name,
    help,
    type: 'histogram',
    aggregator: 'sum',
    get: async () => ({ name, help, type: 'histogram', aggregator: 'sum', values: values() }),
  };
  return {
    observe(value, seq) {
      let place = 0;
      while (place < buckets.length && value > buckets[place]!) place++;
      counts[place]!++;
      lastValues[place] = value;
      lastSeqs[place] = seq;
      lastMs[place] = Date.now();
      sum += value;
    },
    // A registry asks for the name and calls get().
    metric: metric as unknown as Metric,
  };
}
