// A Service as policies that name services see it: headless ones too, and not how it is balanced.
import type { LabelMap } from '../labels.ts';

/** The primary key is `key`, "namespace/name". */
export interface PolicyServiceRow {
  readonly key: string;
  readonly namespace: string;
  readonly name: string;
  readonly labels: LabelMap;
  /** The pods that serve it; undefined where somebody writes its endpoints by hand. */
  readonly selector?: LabelMap;
  /** Of a Service without selector, or with one that asks for labels that do not count: its endpoints. */
  readonly addresses: readonly string[];
}
